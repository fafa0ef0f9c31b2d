"""LSQ+: activations with a learned scale and a learned zero point."""
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax.errors import EffjaxError

SMALLEST_SCALE = 1e-6
_SHRINKS = tuple(np.linspace(1., .4, 25))  # parts of the observed range that are tried; the first of equals


class ActivationQuantizer(NamedTuple):
  """A trained quantizer of one activation.

  init(samples) -> phi, what it trains. apply(phi, x) -> x as the device stores it.
  facts(phi) -> (scale float32, zero_point int32), each a scalar, and `bits`: what the file for the device holds.
  from_zero() -> the one to take for values that are never below 0, if another.
  """
  init: Callable
  apply: Callable
  facts: Callable
  bits: int
  from_zero: Callable | None = None


def lsq_plus(bits: int = 8, *, zero_point: int | None = None) -> ActivationQuantizer:
  """`s (clip(round(x / s) + z, qmin, qmax) - z)`, `z = clip(round(offset), qmin, qmax)`, signed codes of `bits` bits.

  `phi = {'scale', 'offset'}`, scalars. Zero is always representable. Gradient: 1 by x inside the range, else 0;
  by scale and offset scaled as the paper does. With `v = x / s + z` and `g = 1 / sqrt(features * qmax)`, features
  counted per example (axis 0 is the batch):

      d/dx = 1 inside `qmin <= v <= qmax`, else 0
      d/dscale = g (round(x / s) - x / s) inside, g (qmin - z) below, g (qmax - z) above
      d/doffset = 0 inside, -g s outside

  `init` takes, of 25 ranges shrunk from the samples' smallest and largest value, that of least squared error
  (section 3.2). Samples that are all 0 start with the range [0, 1] (`with_zero`).
  The scale is floored at 1e-6 in the forward pass; its derivative passes, so that it can recover.

  Differs from the paper: the learned offset is the zero point in codes (`beta = -s z`), rounded with a
  straight-through derivative, because integer kernels hold an integer zero point; ranges contain 0; `x / s` is x times
  the rounded `1 / s`.

  Source: Bhalgat, Lee, Nagel, Blankevoort, Kwak. LSQ+: Improving low-bit quantization through learnable offsets and
  better initialization. 2020, arXiv:2004.09576.

  Args:
    bits: 2 to 8; or 16, whose kernels want the zero point 0.
    zero_point: does not train but is this code, e.g. -128 for a range that starts at 0, as `from_zero` has it; `phi` is
      then the scale alone, and the step has one pass over the activation less.

  Raises:
    EffjaxError: other bits; a zero point that is no code, or with 16 bits is not 0.

  >>> quantizer = lsq_plus()
  >>> phi = {'scale': jnp.float32(.5), 'offset': jnp.float32(-128.)}
  >>> quantizer.apply(phi, jnp.array([[.6, -3., 200.]]))
  Array([[  0.5,   0. , 127.5]], dtype=float32)
  >>> [int(fact) if i else float(fact) for i, fact in enumerate(quantizer.facts(phi))]
  [0.5, -128]
  """
  if not (2 <= bits <= 8 or bits == 16):
    raise EffjaxError(f'lsq_plus: bits must be 2 to 8, or 16, got {bits}: choose from these')
  low, high = -2 ** (bits - 1), 2 ** (bits - 1) - 1
  fixed = 0 if bits == 16 and zero_point is None else zero_point
  if fixed is not None and (fixed not in range(low, high + 1) or (bits == 16 and fixed)):
    raise EffjaxError(f'lsq_plus: zero_point must be {0 if bits == 16 else f"in {low}..{high}"}, got {zero_point}: '
                      'leave it out to learn it')
  offset = lambda phi: phi['offset'] if fixed is None else jnp.asarray(fixed, phi['scale'].dtype)
  kept = ('scale', 'offset') if fixed is None else ('scale',)
  return ActivationQuantizer(
      init=lambda samples: {name: value for name, value in _fit(samples, low, high, fixed).items() if name in kept},
      apply=lambda phi, x: _quantize(x, phi['scale'], offset(phi), low, high),
      facts=lambda phi: _deployed(phi['scale'], offset(phi), low, high),
      bits=bits, from_zero=functools.partial(lsq_plus, bits, zero_point=low) if fixed is None else None)


def fixed(scale: float, zero_point: int, bits: int = 8) -> ActivationQuantizer:
  """A range that does not train, as kernels of fixed ranges (a sigmoid, a softmax) want it: `phi` is empty.

  Straight-through inside the range, derivative 0 outside, as in `lsq_plus`.

  >>> fixed(1 / 256, -128).apply({}, jnp.array([.3, 2., -1.]))
  Array([0.30078125, 0.99609375, 0.        ], dtype=float32)
  """
  low, high = -2 ** (bits - 1), 2 ** (bits - 1) - 1
  ends = lambda: (jnp.float32(scale), jnp.float32(zero_point))
  return ActivationQuantizer(
      init=lambda samples: {}, apply=lambda phi, x: _quantize(x, *ends(), low, high),
      facts=lambda phi: _deployed(*ends(), low, high), bits=bits)


def fake_quantize(x: Float[Array, '*s'], scale: Float[Array, ''], zero_point: Array, low: int, high: int):
  """`s (clip(round(x / s) + z, low, high) - z)` without a derivative of its own.

  >>> fake_quantize(jnp.array([.3]), jnp.float32(.25), jnp.int32(0), -128, 127)
  Array([0.25], dtype=float32)
  """
  z = zero_point.astype(scale.dtype)
  return scale * (jnp.clip(jnp.round(x * _inverse(scale)) + z, low, high) - z)


def _inverse(scale):
  """1 / scale: XLA keeps an array of quotients for its readers, and computes products again in each."""
  return jnp.ones_like(scale) / scale


def _deployed(scale, offset, low, high):
  """Scale and zero point as the file holds them."""
  scale = jnp.maximum(scale, jnp.asarray(SMALLEST_SCALE, scale.dtype)).astype(jnp.float32)
  return scale, jnp.clip(jnp.round(offset), low, high).astype(jnp.int32)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _quantize(x, scale, offset, low, high):
  s, z = _deployed(scale, offset, low, high)
  return fake_quantize(x.astype(s.dtype), s, z, low, high).astype(x.dtype)


@_quantize.defjvp
def _quantize_jvp(low, high, primals, tangents):
  x, scale, offset = primals
  dx, dscale, doffset = tangents
  s, z = _deployed(scale, offset, low, high)
  z, ratio = z.astype(s.dtype), x.astype(s.dtype) * _inverse(s)
  below, above = ratio + z < low, ratio + z > high
  g = jnp.asarray(1 / np.sqrt(max(1, np.prod(x.shape[1:])) * high), s.dtype)
  by_scale = jnp.where(below, low - z, jnp.where(above, high - z, jnp.round(ratio) - ratio))
  spread = lambda scalar: jnp.broadcast_to(g * scalar.astype(s.dtype), x.shape)  # its transpose is a plain sum
  by_offset = jnp.where(below | above, spread(-s * doffset.astype(s.dtype)), jnp.zeros_like(ratio))
  dx = jnp.where(below | above, jnp.zeros_like(dx), dx)
  return _quantize(x, scale, offset, low, high), dx + (by_scale * spread(dscale) + by_offset).astype(x.dtype)


def _fit(samples, low, high, fixed):
  """Scale and offset of least squared error on the samples."""
  x = samples.astype(jnp.float32)
  smallest, largest = with_zero(x.min(), x.max())

  def candidate(part):
    width = (largest - smallest) / (high - low) if fixed is None else _width(smallest, largest, low, high, fixed)
    scale = jnp.maximum(part * width, jnp.float32(SMALLEST_SCALE))
    zero_point = jnp.clip(jnp.round(low - part * smallest / scale), low, high)
    zero_point = zero_point if fixed is None else jnp.asarray(fixed, zero_point.dtype)
    error = jnp.mean(jnp.square(fake_quantize(x, scale, zero_point, low, high) - x))
    return error, scale, zero_point

  errors, scales, zero_points = jax.lax.map(candidate, jnp.asarray(_SHRINKS, jnp.float32))
  best = jnp.argmin(errors)
  return {'scale': scales[best], 'offset': zero_points[best]}


def with_zero(smallest: Float[Array, ''], largest: Float[Array, '']) -> tuple[Float[Array, ''], Float[Array, '']]:
  """The narrowest range that holds both ends and 0; [0, 1] where that is 0 alone.

  A ReLU that is silent on the samples is no reason for codes of 1e-6: kernels take no ratio of scales above 256, and
  nothing that wakes it later would fit.

  >>> [float(end) for end in with_zero(jnp.float32(2.), jnp.float32(3.))]
  [0.0, 3.0]
  >>> [float(end) for end in with_zero(jnp.float32(0.), jnp.float32(0.))]
  [0.0, 1.0]
  """
  low, high = jnp.minimum(smallest, jnp.zeros_like(smallest)), jnp.maximum(largest, jnp.zeros_like(largest))
  return low, jnp.where(low == high, jnp.ones_like(high), high)


def _width(smallest, largest, low, high, zero_point):
  """The scale of the narrowest range around a given zero point that holds both ends."""
  above, below = largest / max(high - zero_point, 1), -smallest / max(zero_point - low, 1)
  return jnp.maximum(above, below) if zero_point > low else above
