"""LSQ: learned step size quantization of weights."""
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from effjax.errors import EffjaxError
from effjax.quantize.granularity import check_finite, shared_axes
from effjax.reparam import Fact, Rule, Slots

FLOOR = 2.**-20  # of a scale: an int32 bias in units of input scale x weight scale still holds a bias of 8
RATIOS = tuple(2.**(-i / 4) for i in range(17))  # of max|w| / largest code, tried for the initial scale


def lsq(bits: int = 8, *, per_channel: bool = True, channel_axis: int = -1) -> Rule:
  """Weights on a uniform grid whose step is learned: `y = s * clip(round(w / s), -q, q)`, `q = 2^(bits-1) - 1`.

  Gradient: `dy/dw = [|w/s| <= q]`; `dy/ds = g * (round(w/s) - w/s)` inside the range and `g * (+-q)` outside, with
  `g = 1 / sqrt(n q)` for the n weights that share s.

  Args:
    bits: 2 to 8 per weight; the codes are symmetric, -q..q.
    per_channel: one scale per entry of `channel_axis`; else one for the array.
    channel_axis: the output channels; -1 in Flax's `kh kw cin cout`, depthwise too.

  Slots: theta = w; phi = {'scale': float32, size-1 axes}; no state.
  Facts: bits, and the scale s in use (never below 2^-20).

  Raises:
    EffjaxError: bits outside 2..8; an array whose channels have one weight each (a bias); weights that are not finite.

  Differs from the paper: the codes leave out -2^(bits-1), as int8 kernels want; the scale is per channel; it starts
  at the least squared error over 17 candidates, as the paper's `2 mean|w| / sqrt(q)` spans 18 standard deviations at
  8 bits (error of Gaussian weights 28 dB below the signal against 42 dB; 6 against 7 dB at 2 bits). Below the floor the
  gradient of s still passes, so that a dead channel can come back.

  Source: Esser, McKinstry, Bablani, Appuswamy, Modha, "Learned Step Size Quantization", ICLR 2020, arXiv:1902.08153.

  >>> rule = lsq(4)
  >>> slots = rule.init(jax.random.key(0), jnp.array([[-0.7, 0.1], [0.31, 0.]]))
  >>> w = rule.apply(*slots, None)
  >>> s = rule.facts(slots, True).scale
  >>> bool((w == codes(w, s).astype(w.dtype) * s).all())
  True
  """
  largest = largest_code(bits)

  def init(key, w):
    return Slots(w, {'scale': initial_scale(w, bits, per_channel=per_channel, channel_axis=channel_axis)}, {})

  return Rule(
      init, apply=lambda w, phi, state, key: _lsq(w, phi['scale'], largest),
      facts=lambda slots, hard: Fact(bits=jnp.asarray(bits, jnp.float32), scale=floored(slots.phi['scale'])))


def quantize(w: Float[Array, '*s'], scale: Float[Array, '#*s'], bits: int) -> Float[Array, '*s']:
  """`scale * clip(round(w / scale), -q, q)` of any array, with the gradients of LSQ; `scale` has w's rank.

  >>> quantize(jnp.array([0.9, 0.26, -0.1]), jnp.array([0.25]), 3)
  Array([0.75, 0.25, 0.  ], dtype=float32)
  """
  return _lsq(w, scale, largest_code(bits))


def codes(w: Float[Array, '*s'], scale: Float[Array, '#*s']) -> Int[Array, '*s']:
  """The integers of an array that is already on its grid, `w = code * scale`, as int32.

  >>> codes(jnp.array([0.75, -0.5]), jnp.array([0.25]))
  Array([ 3, -2], dtype=int32)
  """
  return jnp.round(w.astype(jnp.float32) / scale.astype(jnp.float32)).astype(jnp.int32)


def largest_code(bits: int) -> int:
  """`2^(bits-1) - 1`.

  >>> [largest_code(b) for b in (2, 4, 8)]
  [1, 7, 127]
  """
  if not (isinstance(bits, int) and 2 <= bits <= 8):
    raise EffjaxError(f'lsq: bits must be a whole number from 2 to 8, got {bits!r}: int8 kernels hold no more')
  return 2**(bits - 1) - 1


def floored(scale: Float[Array, '*s']) -> Float[Array, '*s']:
  """The scale in use: at least 2^-20.

  >>> floored(jnp.array(-1.)) == 2.**-20
  Array(True, dtype=bool)
  """
  return jnp.maximum(scale, jnp.asarray(FLOOR, scale.dtype))


def spread(scale: Float[Array, '#*s'], shape: tuple[int, ...]) -> Float[Array, '*s']:
  """The scale of each weight. Its transpose is a plain sum, which XLA's CPU backend runs several times faster than the
  sum that keeps axes of size 1, as arithmetic with a broadcast scale makes it.

  >>> spread(jnp.ones((1, 3)), (2, 3)).shape
  (2, 3)
  """
  kept = tuple(axis for axis, size in enumerate(scale.shape) if size == shape[axis])
  squeezed = jax.lax.squeeze(scale, tuple(axis for axis in range(scale.ndim) if axis not in kept))
  return jax.lax.broadcast_in_dim(squeezed, shape, kept)


def initial_scale(w: Float[Array, '*s'], bits: int, *, per_channel: bool = True,
                  channel_axis: int = -1) -> Float[Array, '#*s']:
  """The scale of least squared error among 17 fractions (1 to 1/16) of `max|w| / q`.

  A channel of zeros starts as if its largest weight were `1 / sqrt(n)`.

  >>> float(initial_scale(jnp.array([[1.], [-3.]]), 3)[0, 0])
  1.0
  """
  axes = shared_axes('lsq', w.shape, per_channel, channel_axis)
  check_finite('lsq', w)
  w, largest = w.astype(jnp.float32), largest_code(bits)
  top = jnp.max(jnp.abs(w), axes, keepdims=True)
  top = jnp.where(top > 0, top, jnp.asarray(max(w.size // max(top.size, 1), 1)**-.5, top.dtype))
  tried = lambda ratio: floored(top * (ratio / jnp.float32(largest)))
  error = lambda ratio: jnp.sum((w - _lsq(w, tried(ratio), largest))**2, axes, keepdims=True)
  ratios = jnp.asarray(RATIOS, jnp.float32)
  return tried(ratios[jnp.argmin(jax.lax.map(error, ratios), 0)])


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _lsq(w, scale, largest):
  return _grid(w, scale, largest)[0]


@_lsq.defjvp
def _lsq_jvp(largest, primals, tangents):
  (w, scale), (dw, ds) = primals, tangents
  y, code, ratio = _grid(w, scale, largest)
  s = floored(scale.astype(jnp.float32))
  shared = (w.size // max(scale.size, 1) * largest)**-.5
  # s dy/ds = y - [inside] w: of what is there anyway, so that no array is kept for the backward pass.
  change = spread(ds.astype(jnp.float32) * (shared / s), w.shape)
  inside = dw.astype(jnp.float32) - w.astype(jnp.float32) * change
  inside = jnp.where(jnp.abs(ratio) <= largest, inside, jnp.zeros_like(inside))
  return y, (code * s * change + inside).astype(y.dtype)


def _grid(w, scale, largest):
  """Values, codes and w / scale, in float32 whatever w is: bfloat16 has no room for w / scale near 127.

  Times the inverse, as XLA computes a quotient whose divisor is a broadcast, and only then: the codes of ties would
  depend on what is compiled around them.
  """
  s = floored(scale.astype(jnp.float32))
  ratio = w.astype(jnp.float32) * (jnp.ones_like(s) / s)
  code = jnp.clip(jnp.round(ratio), -float(largest), float(largest))
  code = jnp.where(code == 0, jnp.zeros_like(code), code)  # no negative zero: an integer has none
  return (code * s).astype(w.dtype), code, ratio
