"""gemmlowp's logistic and tanh of int16 numbers with 3 integer bits: what kernels run for scales that they can shift.

A number of `n` integer bits is an integer in units of `2^(n - 15)`; products are rounded, ties up, and saturate.
"""
import jax
import jax.numpy as jnp
import numpy as np

LOWEST, HIGHEST = -2 ** 15, 2 ** 15 - 1


def logistic(a: jax.Array) -> jax.Array:
  """`1 / (1 + exp(-a))`, 3 integer bits in and none out."""
  positive = _reciprocal(_exp(-jnp.abs(a), 3))
  return jnp.where(a == 0, 2 ** 14, jnp.where(a > 0, positive, HIGHEST - positive))


def tanh(a: jax.Array) -> jax.Array:
  """`(1 - exp(-2 a)) / (1 + exp(-2 a))`, 3 integer bits in and none out."""
  size = _fraction(_exp(-jnp.abs(a), 4))  # of one more integer bit: twice the number
  return jnp.where(a == 0, 0, jnp.where(a > 0, size, -size))


def _saturated(a):
  return jnp.clip(a, LOWEST, HIGHEST)


def _product(a, b):
  return _saturated((a * b + 2 ** 14) >> 15)


def _halved(a, bits):
  """`a / 2^bits`, ties away from zero."""
  return (a + 2 ** (bits - 1) - (a < 0).astype(jnp.int32)) >> bits


def _constant(value, integer_bits=0):
  """A constant: 32 bits, then 16."""
  wide = int(np.floor(value * 2. ** (31 - integer_bits) + .5))
  return min((wide + 2 ** 15) >> 16, HIGHEST)


def _exp(a, integer_bits):
  """exp of numbers that are not positive: of the part within 1/4 a series, then a factor for each bit of the rest."""
  quarter = 1 << (13 - integer_bits)
  part = (a & (quarter - 1)) - quarter
  result = _exp_in_quarter(_saturated(part << integer_bits))
  for exponent in range(-2, integer_bits):
    bit = ((part - a) >> (15 - integer_bits + exponent)) & 1
    result = jnp.where(bit == 1, _product(result, _constant(np.exp(-2. ** exponent))), result)
  return jnp.where(a == 0, HIGHEST, result)


def _exp_in_quarter(a):
  """The series around -1/8 of numbers in [-1/4, 0)."""
  term, x = _constant(np.exp(-.125)), a + (1 << 12)
  x2 = _product(x, x)
  x3, x4 = _product(x2, x), _product(x2, x2)
  rest = _halved(_product(_halved(x4, 2) + x3, _constant(1 / 3)) + x2, 1)
  return _saturated(term + _product(term, x + rest))


def _newton(a):
  """`2 / (1 + a)` for a in [0, 1], 2 integer bits: three steps of Newton's method."""
  half = (a + HIGHEST + 1) >> 1
  x = _constant(48 / 17, 2) + _product(half, _constant(-32 / 17, 2))
  for _ in range(3):
    x = x + _saturated(_product(x, (1 << 13) - _product(half, x)) << 2)
  return x


def _reciprocal(a):
  """`1 / (1 + a)`: half of the number of 2 integer bits, with none."""
  return _saturated(_newton(a) << 1)


def _fraction(a):
  """`(1 - a) / (1 + a)`."""
  return _saturated((_newton(a) - (1 << 13)) << 2)
