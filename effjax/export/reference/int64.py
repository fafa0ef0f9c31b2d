"""64-bit integers as two words: the accumulators of kernels of 16 bits, in JAX without x64."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Wide(NamedTuple):
  """`2^32 high + low`, int32 and uint32. All operations wrap at 64 bits, as the device's do."""
  high: jax.Array
  low: jax.Array


def wide(x: jax.Array | np.ndarray | np.generic) -> Wide:
  """int32 values of an array, or int64 constants of NumPy."""
  if isinstance(x, np.ndarray | np.generic):
    return Wide(jnp.asarray((x >> 32).astype(np.int32)), jnp.asarray((x & 0xffffffff).astype(np.uint32)))
  return Wide(x >> 31, x.astype(jnp.uint32))


def add(a: Wide, b: Wide) -> Wide:
  """Their sum."""
  low = a.low + b.low
  return Wide(a.high + b.high + (low < a.low).astype(jnp.int32), low)


def times(a: Wide, b: np.ndarray | int) -> Wide:
  """The product with constants in [0, 2^16): the low word in halves, whose products fit 32 bits.

  >>> times(wide(jnp.int32([-3])), 5)
  Wide(high=Array([-1], dtype=int32), low=Array([4294967281], dtype=uint32))
  """
  m = jnp.asarray(b, jnp.uint32)
  first = (a.low & 0xffff) * m
  second = (a.low >> 16) * m + (first >> 16)
  return Wide(a.high * m.astype(jnp.int32) + (second >> 16).astype(jnp.int32), (second << 16) | (first & 0xffff))


def magnitude(a: Wide) -> Wide:
  """Its absolute value."""
  sign = a.high >> 31
  flipped = Wide(a.high ^ sign, a.low ^ sign.astype(jnp.uint32))
  return add(flipped, wide(-sign))


def right(a: Wide, by: int) -> Wide:
  """`a >> by` for 0 < by < 32."""
  return Wide(a.high >> by, (a.low >> by) | (a.high.astype(jnp.uint32) << (32 - by)))


def shifted(a: Wide, by: np.ndarray | int) -> jax.Array:
  """The low word of `a >> by` for constants in [0, 63], as int32.

  >>> shifted(times(wide(jnp.int32([-2 ** 30])), 2 ** 10), 38)
  Array([-4], dtype=int32)
  """
  by = np.asarray(by)
  up = jnp.asarray(np.clip(32 - by, 0, 31), jnp.uint32)
  small = jnp.asarray(np.clip(by, 0, 31), jnp.uint32)
  far = a.high >> jnp.asarray(np.clip(by - 32, 0, 31), jnp.int32)
  near = (a.low >> small) | jnp.where(by > 0, a.high.astype(jnp.uint32) << up, jnp.uint32(0))
  return jnp.where(by >= 32, far, near.astype(jnp.int32))
