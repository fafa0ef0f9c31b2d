"""Binarized networks: activations of -1 and 1, and the integer identities that such networks run on."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped, UInt

from effjax import ste
from effjax.quantize.lsq_plus import ActivationQuantizer

_WORD = 32


def sign_activation() -> ActivationQuantizer:
  """`1` where `x >= 0`, else -1. Nothing to train.

  Gradient: `dy/dx = [|x| <= 1]`, that of a hard tanh.

  For networks whose order is convolution, BatchNorm, sign: behind a ReLU every activation would be 1. The first input
  and the last output stay real in the paper: take their ranges out of those that `activations` gives.
  With 1 bit it is for studies alone: the requantization of an integer kernel rounds and clips but takes no sign, so
  `export.finalize` refuses it.

  Differs from the paper: deterministic while training too; BatchNorm is not shift-based.

  Source: Hubara, Courbariaux, Soudry, El-Yaniv, Bengio, "Binarized Neural Networks", NeurIPS 2016, arXiv:1602.02830,
  survey [36].

  >>> sign_activation().apply({}, jnp.array([.3, -2., 0.]))
  Array([ 1., -1.,  1.], dtype=float32)
  """
  return ActivationQuantizer(init=lambda samples: {}, apply=lambda phi, x: ste.sign(x),
                             facts=lambda phi: (jnp.float32(1), jnp.int32(0)), bits=1)


def packed_signs(x: Float[Array, '*b n']) -> UInt[Array, '*b words']:
  """The signs along the last axis as bits, 32 in a word: 1 where `x >= 0`; the last word is filled with 0.

  >>> packed_signs(jnp.array([1., -1., 1.]))
  Array([5], dtype=uint32)
  """
  bits = jnp.pad((x >= 0).astype(jnp.uint32), [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % _WORD)])
  place = jnp.arange(_WORD, dtype=jnp.uint32)
  words = jnp.left_shift(bits.reshape(*x.shape[:-1], -1, _WORD), jnp.broadcast_to(place, (*[1] * x.ndim, _WORD)))
  return jnp.sum(words, -1, dtype=jnp.uint32)


def xnor_dot(a: UInt[Array, '*b words'], b: UInt[Array, '*b words'], n: int) -> Int[Array, '*b']:
  """`sum_i a_i b_i` of n signs each, of `packed_signs` words: `n - 2 popcount(a xor b)`.

  >>> xnor_dot(packed_signs(jnp.array([1., -1., 1.])), packed_signs(jnp.array([1., 1., 1.])), 3)
  Array(1, dtype=int32)
  """
  return n - 2 * jnp.sum(jax.lax.population_count(a ^ b).astype(jnp.int32), -1)


def bit_planes(x: Shaped[Array, '*s']) -> Shaped[Array, '8 *s']:
  """The bits of uint8 images, lowest first: `x = sum_b 2^b planes_b`, so that `x @ w = sum_b 2^b (planes_b @ w)`.

  >>> bit_planes(jnp.array([5], jnp.uint8))[:3, 0]
  Array([1, 0, 1], dtype=uint8)
  """
  place = jnp.arange(8, dtype=jnp.uint8).reshape(8, *[1] * x.ndim)
  return jnp.bitwise_and(jnp.right_shift(x[None], place), jnp.uint8(1))
