"""Uniform grids whose step follows the weights: what integer inference is usually trained with."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax import ste
from effjax.errors import EffjaxError
from effjax.quantize.data_types import of_entries, rows
from effjax.quantize.granularity import check_block, check_finite, shared_axes
from effjax.reparam import Fact, Rule, Slots

FLOOR = 2.**-20  # of a scale


def uniform(bits: int = 8, *, symmetric: bool = True, per_channel: bool = True, channel_axis: int = -1,
            block: int | None = None) -> Rule:
  """Codes times a scale that spans the largest weight now: `y = s (clip(round(w / s) + z, low, high) - z)`.

  Symmetric: `s = max|w| / (2^(bits-1) - 1)`, `z = 0`. Affine: codes 0 to `2^bits - 1`, `s = (max - min) / (2^bits - 1)`
  with min <= 0 <= max, `z = round(-min / s)`. Gradient: `dy/dw = 1` everywhere, as no weight is outside the range; s
  and z are constants.

  Args:
    bits: 2 to 16.
    symmetric: integer kernels want it of weights; the affine form is for storage and for float arithmetic.
    per_channel: one scale per entry of `channel_axis`; else one for the array.
    channel_axis: the output channels.
    block: so many consecutive entries of the flattened array share a scale, instead (Dettmers, survey [34]); the last
      block may be shorter.

  Slots: theta = w; no phi, no state.
  Facts: bits, scale, and the offset z of the affine form. Runs on integers: symmetric, up to 8 bits, no block.

  Raises:
    EffjaxError: bits outside 2..16; an axis that is not there; a block below 1; weights that are not finite.

  Differs from the paper: an array of zeros has the scale 2^-20; symmetric codes leave out -2^(bits-1).

  Source: Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam, Kalenichenko, "Quantization and Training of Neural Networks for
  Efficient Integer-Arithmetic-Only Inference", CVPR 2018, arXiv:1712.05877.

  >>> rule = uniform(3, per_channel=False)
  >>> rule.apply(*rule.init(jax.random.key(0), jnp.array([[-.75, .1], [.29, 0.]])), None)
  Array([[-0.75,  0.  ],
         [ 0.25,  0.  ]], dtype=float32)
  """
  if not (isinstance(bits, int) and 2 <= bits <= 16):
    raise EffjaxError(f'uniform: bits must be a whole number from 2 to 16, got {bits!r}')
  if block is not None:
    check_block('uniform', block)
  grid = _symmetric if symmetric else _affine

  def parts(w):
    wide = w.astype(jnp.float32)
    if block is None:
      return grid(wide, bits, shared_axes('uniform', w.shape, per_channel, channel_axis))
    return tuple(of_entries(each[:, 0], w.shape, block) for each in grid(rows(wide, block), bits, (1,)))

  def init(key, w):
    check_finite('uniform', w)
    parts(w)  # whose errors come now
    return Slots(w, {}, {})

  def apply(w, phi, state, key):
    scale, offset = jax.lax.stop_gradient(parts(w))
    low, high = (1 - 2**(bits - 1), 2**(bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    code = jnp.clip(jnp.round(w.astype(jnp.float32) * (1 / scale)) + offset, low, high) - offset
    return ste.surrogate((code * scale).astype(w.dtype), w, jnp.ones_like(w))

  def facts(slots, hard):
    scale, offset = parts(slots.theta)
    return Fact(bits=jnp.asarray(bits, jnp.float32), scale=scale, offset=None if symmetric else offset)

  return Rule(init, apply, facts)


def _symmetric(w: Float[Array, '*s'], bits: int, axes: tuple[int, ...]):
  """Scale and offset that span the largest weight. No quotient by a constant, which XLA rounds one way or another."""
  top = jnp.max(jnp.abs(w), axes, keepdims=True)
  return jnp.maximum(top * (1 / (2**(bits - 1) - 1)), FLOOR), jnp.zeros_like(top)


def _affine(w: Float[Array, '*s'], bits: int, axes: tuple[int, ...]):
  """Scale and offset that span the smallest and the largest weight, and zero."""
  low, high = jnp.minimum(jnp.min(w, axes, keepdims=True), 0.), jnp.maximum(jnp.max(w, axes, keepdims=True), 0.)
  scale = jnp.maximum((high - low) * (1 / (2**bits - 1)), FLOOR)
  return scale, jnp.round(-low / scale)
