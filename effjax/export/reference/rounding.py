"""How kernels bring an accumulator back to 8 bits: one multiplication in float32, or 31-bit fixed-point numbers."""
import jax
import jax.numpy as jnp
import numpy as np

from effjax.export.network import ACTIVATIONS, Node, Tensor


def clipped(node: Node, codes: jax.Array, kernels: str = 'xnnpack') -> jax.Array:
  """int32 codes within the type's range and the node's activation."""
  low, high = bounds(node.output, node.activation, kernels)
  return jnp.clip(codes, low, high)


def bounds(tensor: Tensor, activation: str = '', kernels: str = 'xnnpack') -> tuple[int, int]:
  """The smallest and the largest code of a tensor after an activation.

  In float32: builtin kernels round without the zero point, ties away from zero; XNNPACK with it, ties to even.
  """
  top = 2 ** (tensor.bits - 1)
  ends = np.clip(np.float32(ACTIVATIONS[activation]) / np.float32(tensor.scale), np.float32(-1e6), np.float32(1e6))
  if kernels == 'builtin':
    rounded = np.sign(ends) * np.floor(np.abs(ends, dtype=np.float64) + .5) + tensor.zero_point
  else:
    rounded = np.rint(ends + np.float32(tensor.zero_point))
  low, high = np.clip(rounded, -top, top - 1).astype(np.int32)
  return int(low), int(high)


def stored(node: Node, rounded: jax.Array, kernels: str = 'xnnpack') -> jax.Array:
  """Codes without zero point (integers, or floats that are whole), as they are stored."""
  far = jnp.asarray(10 ** 9, rounded.dtype)
  return clipped(node, jnp.clip(rounded, -far, far).astype(jnp.int32) + node.output.zero_point, kernels)


def float_rounding(node: Node, acc: jax.Array, multiplier) -> jax.Array:
  """XNNPACK: `round(float32(acc) * multiplier)`, ties to even, stored."""
  return stored(node, jnp.round(acc.astype(jnp.float32) * jnp.asarray(multiplier, jnp.float32)))


def ratio(source: Tensor, output: Tensor, dtype: type = np.float32) -> np.floating:
  """`source.scale / output.scale`: the file's float32 scales, divided as `dtype`."""
  return dtype(np.float32(source.scale)) / dtype(np.float32(output.scale))


def fixed_point(ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """`ratio = multiplier 2^(exponent - 31)`, multiplier an integer in [2^30, 2^31).

  >>> fixed_point(np.array([.75]))
  (array([1610612736]), array([0], dtype=int32))
  """
  fraction, exponent = np.frexp(np.asarray(ratio, np.float64))
  multiplier = np.floor(fraction * 2. ** 31 + .5).astype(np.int64)
  full = multiplier == 2 ** 31
  return np.where(full, 2 ** 30, multiplier), np.where(full, exponent + 1, exponent).astype(np.int32)


def fixed_rounding(acc: jax.Array, multiplier, exponent, away=False) -> jax.Array:
  """gemmlowp: the high word of `2 acc multiplier`, rounded, then shifted right, ties up or (`away`) away from zero."""
  shift = np.clip(-exponent, 0, 30)  # from 30 on nothing is left
  high = doubling_high_product(acc << np.maximum(exponent, 0), multiplier)
  half = jnp.asarray((1 << shift) >> 1, jnp.int32)
  return (high + half - (jnp.asarray(away & (shift > 0)) & (high < 0)).astype(jnp.int32)) >> shift


def doubling_high_product(a: jax.Array, b: np.ndarray) -> jax.Array:
  """`floor((a b + 2^30) / 2^31)` in 32-bit words, `b` a constant in [0, 2^31)."""
  a1, a0 = a >> 16, (a & 0xffff)
  b1, b0 = (jnp.asarray(part, jnp.int32) for part in (b >> 16, b & 0xffff))
  low = a0.astype(jnp.uint32) * b0.astype(jnp.uint32)
  left, right = a1 * b0, a0 * b1
  middle = (left & 0xffff) + (right & 0xffff) + (low >> 16).astype(jnp.int32)
  high = a1 * b1 + (left >> 16) + (right >> 16) + (middle >> 16)
  top = (middle & 0xffff) >> 14  # the two highest bits of the low word
  return 2 * high + ((top + 1) >> 1)
