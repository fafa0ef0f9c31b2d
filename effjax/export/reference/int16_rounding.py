"""How builtin kernels of 16-bit activations bring an accumulator back to 16 bits."""
import jax
import jax.numpy as jnp
import numpy as np

from effjax.export.network import Tensor
from effjax.export.reference.int64 import Wide, add, magnitude, right, shifted, times, wide
from effjax.export.reference.rounding import fixed_point, fixed_rounding


def scale_of(tensor: Tensor) -> np.float64:
  """The scale as the file holds it, in float32, widened."""
  return np.float64(np.float32(tensor.scale))


def narrowed(acc: Wide, ratio: np.ndarray) -> jax.Array:
  """`acc ratio` rounded once, ties up; of the ratio's multiplier 15 bits are used."""
  multiplier, exponent = fixed_point(ratio)
  reduced = np.where(multiplier < 0x7fff0000, (multiplier + 2 ** 15) >> 16, 0x7fff)
  shift = 15 - exponent.astype(np.int64)
  return shifted(add(times(acc, reduced), wide(np.int64(1) << (shift - 1))), shift)


def rounded(acc: Wide, ratio: np.ndarray) -> jax.Array:
  """`acc ratio` as a product of doubles, ties away from zero.

  47 bits of the ratio, rounded up: a product of doubles that is closer to a tie than their precision is a tie. Codes
  that differ from the device's need a product within 2^-30 of one.
  """
  fraction, exponent = np.frexp(np.asarray(ratio, np.float64))
  digits = np.ceil(fraction * 2. ** 47).astype(np.int64)
  size, total = magnitude(acc), wide(np.zeros_like(digits))
  for place in (0, 16, 32):
    total = add(times(size, (digits >> place) & 0xffff), right(total, 16))
  shift = 15 - exponent.astype(np.int64)
  codes = shifted(add(total, wide(np.int64(1) << (shift - 1))), shift)
  return jnp.where(acc.high < 0, -codes, codes)


def rounded_once(x: jax.Array, ratio: float) -> jax.Array:
  """`x ratio` of 16-bit codes, ties up, with all 31 bits of the ratio's multiplier.

  >>> rounded_once(jnp.int32([1, 2, -2, 3]), .25)
  Array([0, 1, 0, 1], dtype=int32)
  """
  multiplier, exponent = map(int, fixed_point(ratio))
  high = times(times(times(wide(x), multiplier >> 16), 256), 256)
  half = wide(np.full((1,) * x.ndim, 1 << (30 - exponent)))
  return shifted(add(add(high, times(wide(x), multiplier & 0xffff)), half), 31 - exponent)


def rescaled(x: jax.Array, ratio: float | np.ndarray) -> jax.Array:
  """`x ratio` of 32-bit integers, rounded twice: ties up to 31 bits, then away from zero.

  >>> rescaled(jnp.int32([6, -6, 7]), .25)
  Array([ 2, -2,  2], dtype=int32)
  """
  multiplier, exponent = fixed_point(np.asarray(ratio))
  return fixed_rounding(x, multiplier, exponent, away=True)
