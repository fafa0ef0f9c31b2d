"""Optimizers whose moments are kept in 8 bits between steps."""
import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, UInt8

from effjax import tree
from effjax.errors import EffjaxError
from effjax.quantize.data_types import decode_blocks, dynamic_levels, encode_blocks
from effjax.quantize.granularity import check_block

NEVER_NEGATIVE = r'(.*/)?nu(/.*)?'  # as optax names second moments


class Packed(NamedTuple):
  """An array of the inner state: codes of one byte, and the largest magnitude of each block."""
  codes: UInt8[Array, '*s']
  largest: Float[Array, ' b']


def quantize_state(inner: optax.GradientTransformation, *, block: int = 256, smallest: int = 4096,
                   never_negative: str = NEVER_NEGATIVE) -> optax.GradientTransformation:
  """`inner` with every large float32 array of its state in 8 bits between steps, decoded for each: about a quarter.

  Dynamic tree codes with a scale per block (`dynamic_levels`), those without a sign for arrays that are never negative.

  Args:
    inner: e.g. `optax.adam(1e-3)`.
    block: so many consecutive entries share a scale of four bytes.
    smallest: arrays with fewer entries stay as they are.
    never_negative: regular expression for whole paths of the inner state; by default Adam's second moments, `nu`.

  State: that of `inner`, with `Packed` in place of arrays.

  Raises:
    EffjaxError: a block below 1; no array of the state is large enough to be kept in 8 bits.

  Differs from the paper: in arrays that are never negative a positive number keeps a code above 0, since a second
  moment of 0 would make the step as large as the inverse of Adam's epsilon; blocks of 256, the paper's are of 2048.

  Source: Dettmers, Lewis, Shleifer, Zettlemoyer, "8-bit Optimizers via Block-wise Quantization", ICLR 2022,
  arXiv:2110.02861; survey [34].

  >>> params = {'w': jnp.ones((64, 64))}
  >>> size = lambda tx: sum(leaf.nbytes for leaf in jax.tree.leaves(tx.init(params)))
  >>> size(optax.adam(.1)), size(quantize_state(optax.adam(.1)))
  (32772, 8324)
  """
  check_block('quantize_state', block)
  positive, levels = re.compile(never_negative), {name: dynamic_levels(signed=name) for name in (True, False)}
  signed = lambda path: not positive.fullmatch(tree.path_string(path))
  is_large = lambda x: x.dtype == jnp.float32 and math.prod(x.shape) >= smallest
  is_packed = lambda x: isinstance(x, Packed)

  def pack(path, x):
    if not is_large(x):
      return x
    codes, largest = encode_blocks(x, levels[signed(path)], block)
    return Packed(codes if signed(path) else jnp.maximum(codes, (x > 0).astype(jnp.uint8)), largest)

  def unpack(path, x):
    return decode_blocks(*x, levels[signed(path)], block) if is_packed(x) else x

  packed = lambda state: jax.tree_util.tree_map_with_path(pack, state)

  def init(params):
    state = packed(inner.init(params))
    if not any(map(is_packed, jax.tree.leaves(state, is_leaf=is_packed))):
      raise EffjaxError(f'quantize_state: no float32 array of the state has {smallest} entries or more, nothing would '
                        'be kept in 8 bits: give a lower `smallest`, or leave this out')
    return state

  def update(updates, state, params=None, **extra):
    state = jax.tree_util.tree_map_with_path(unpack, state, is_leaf=is_packed)
    updates, state = optax.with_extra_args_support(inner).update(updates, state, params, **extra)
    return updates, packed(state)

  return optax.GradientTransformationExtraArgs(init, update)
