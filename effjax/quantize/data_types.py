"""Data types of 8 bits and less for parts of -1 to 1: code books, and arrays in blocks that each have a scale."""
from statistics import NormalDist

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from effjax.errors import EffjaxError
from effjax.quantize.granularity import check_block
from effjax.quantize.levels import check_levels, nearest

Levels = Float[np.ndarray, ' k'] | Float[Array, ' k']


def linear_levels(bits: int = 8) -> Float[np.ndarray, ' k']:
  """`k / q`, k = -q to q, `q = 2^(bits-1) - 1`: equal steps, an exact 0.

  Raises:
    EffjaxError: bits outside 2..8.

  >>> linear_levels(2), len(linear_levels(8))
  (array([-1.,  0.,  1.], dtype=float32), 255)
  """
  if not (isinstance(bits, int) and 2 <= bits <= 8):
    raise EffjaxError(f'linear_levels: bits must be a whole number from 2 to 8, got {bits!r}')
  largest = 2**(bits - 1) - 1
  return (np.arange(-largest, largest + 1) / largest).astype(np.float32)


def dynamic_levels(*, signed: bool = True) -> Float[np.ndarray, ' k']:
  """Dynamic tree: 256 values, more digits for the larger ones and more exponents for the smaller ones.

  Sign, i zeros that are the decimal exponent, a 1, and bits that bisect [0.1, 1] into so many parts, of which the
  middle counts: `10^-(6-i)` times the `2^i` midpoints, i = 0 to 6, with both signs; 0 and 1. So 1 is there and -1 is
  not: the smallest is -0.99296875. The magnitude nearest to 0 is 5.5e-7.

  Args:
    signed: else the sign's bit bisects once more, `2^(i+1)` midpoints, for what is never negative.

  Source: Dettmers, "8-Bit Approximations for Parallelism in Deep Learning", ICLR 2016, arXiv:1511.04561, survey [34];
  without a sign Dettmers, Lewis, Shleifer, Zettlemoyer, "8-bit Optimizers via Block-wise Quantization", ICLR 2022,
  arXiv:2110.02861.

  >>> levels = dynamic_levels()
  >>> len(levels), float(levels[0]), float(levels[-1])
  (256, -0.992968738079071, 1.0)
  """
  found = []
  for i in range(7):
    ends = np.linspace(.1, 1, 2**(i + (not signed)) + 1)
    found.append((ends[1:] + ends[:-1]) / 2 * 10.**(i - 6))
  found = np.concatenate(found)
  return np.sort(np.concatenate([-found if signed else [], found, [0., 1.]])).astype(np.float32)


def normal_levels() -> Float[np.ndarray, ' k']:
  """NF4: 16 values, closer together where a normal distribution has more weights, with an exact 0.

  Quantiles of the normal distribution at 8 equal steps from 0.9677083 down to 1/2 for the positive ones, 7 for the
  negative ones, divided by the largest. 0.9677083 is `1 - (1/32 + 1/30) / 2`.

  Source: Dettmers, Pagnoni, Holtzman, Zettlemoyer, "QLoRA: Efficient Finetuning of Quantized LLMs", NeurIPS 2023,
  arXiv:2305.14314; the probability at the end as in its code, bitsandbytes, whose table is this one to 1e-6.

  >>> [round(float(level), 4) for level in normal_levels()[5:11]]
  [-0.1848, -0.091, 0.0, 0.0796, 0.1609, 0.2461]
  """
  quantiles = lambda count: [NormalDist().inv_cdf(p) for p in np.linspace(.9677083, .5, count + 1)[:-1]]
  found = np.sort(quantiles(8) + [0.] + [-q for q in quantiles(7)])
  return (found / found[-1]).astype(np.float32)


def encode_blocks(x: Float[Array, '*s'], levels: Levels,
                  block: int = 256) -> tuple[UInt8[Array, '*s'], Float[Array, ' b']]:
  """The number of the level nearest to `x / a` for each entry, and a, the largest magnitude of each block, float32.

  Args:
    x: not differentiable: see `blockwise`.
    levels: 2 to 256 of `linear_levels`, `dynamic_levels`, `normal_levels`, or others with 0 and a magnitude of 1.
    block: so many consecutive entries of the flattened array share a; the last block may be shorter.

  Raises:
    EffjaxError: levels that do not ascend, without 0 or without a magnitude of 1; a block below 1.

  Differs from the paper: a for each block, not for the array, as in arXiv:2110.02861.

  >>> codes, largest = encode_blocks(jnp.array([.1, -2., 0., 40.]), linear_levels(3), 2)
  >>> codes.tolist(), largest.tolist(), decode_blocks(codes, largest, linear_levels(3), 2).tolist()
  ([3, 0, 3, 6], [2.0, 40.0], [0.0, -2.0, 0.0, 40.0])
  """
  levels = _checked('encode_blocks', levels, block)
  largest = block_largest(x, block)
  return nearest(over_blocks(x, largest, block), levels).astype(jnp.uint8), largest


def decode_blocks(codes: UInt8[Array, '*s'], largest: Float[Array, ' b'], levels: Levels,
                  block: int = 256) -> Float[Array, '*s']:
  """`levels[code] * a`, float32: what `encode_blocks` made of an array with the same levels and block.

  Raises:
    EffjaxError: as `encode_blocks`; `largest` is of other blocks.

  >>> decode_blocks(jnp.array([0, 2], jnp.uint8), jnp.array([3.]), jnp.array([-1., 0., .5]))
  Array([-3. ,  1.5], dtype=float32)
  """
  levels = _checked('decode_blocks', levels, block)
  if largest.size != -(-codes.size // block):
    raise EffjaxError(f'decode_blocks: {codes.size} codes in blocks of {block} have {-(-codes.size // block)} scales, '
                      f'got {largest.size}: give the block that they were encoded with')
  return levels.at[codes.astype(jnp.int32)].get(mode='clip') * of_entries(largest, codes.shape, block)


def block_largest(x: Float[Array, '*s'], block: int) -> Float[Array, ' b']:
  """The largest magnitude of each `block` consecutive entries, float32; the last block may be shorter.

  >>> block_largest(jnp.array([1., -3., 2.]), 2)
  Array([3., 2.], dtype=float32)
  """
  return jnp.max(jnp.abs(rows(x, block)), 1)


def rows(x: Float[Array, '*s'], block: int) -> Float[Array, 'b n']:
  """The flattened array in rows of `block` entries, float32, with zeros behind its end.

  >>> rows(jnp.array([1., -3., 2.]), 2)
  Array([[ 1., -3.],
         [ 2.,  0.]], dtype=float32)
  """
  flat = x.astype(jnp.float32).ravel()
  return jnp.pad(flat, (0, -flat.size % block)).reshape(-1, block)


def of_entries(scale: Float[Array, ' b'], shape: tuple[int, ...], block: int) -> Float[Array, '*s']:
  """The scale of each entry's block, in the shape of the array.

  >>> of_entries(jnp.array([3., 2.]), (3,), 2)
  Array([3., 3., 2.], dtype=float32)
  """
  return jnp.broadcast_to(scale[:, None], (scale.size, block)).ravel()[:np.prod(shape, dtype=int)].reshape(shape)


def over_blocks(x: Float[Array, '*s'], scale: Float[Array, ' b'], block: int) -> Float[Array, '*s']:
  """`x / scale` of each entry's block, float32; 0 where the scale is no normal number.

  >>> over_blocks(jnp.array([3., 0., 0.]), jnp.array([2., 0.]), 2)
  Array([1.5, 0. , 0. ], dtype=float32)
  """
  tiny = np.float32(2.**-126)
  inverse = jnp.where(scale >= tiny, 1 / jnp.maximum(scale, tiny), 0.)
  return x.astype(jnp.float32) * of_entries(inverse, x.shape, block)


def _checked(who, levels, block):
  check_block(who, block)
  return check_levels(who, levels)
