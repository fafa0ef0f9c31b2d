"""Weights in a data type of few bits, with a scale for each block."""
import jax
import jax.numpy as jnp

from effjax import ste
from effjax.quantize.data_types import Levels, block_largest, normal_levels, of_entries, over_blocks
from effjax.quantize.granularity import check_block, check_finite
from effjax.quantize.levels import check_levels, nearest
from effjax.quantize.lsq import floored
from effjax.reparam import Fact, Rule, Slots


def blockwise(levels: Levels | None = None, *, block: int = 64) -> Rule:
  """`y = levels[k] a`: a is the largest magnitude in the block, k the level nearest to `w / a`.

  Gradient: `dy/dw = 1` everywhere; a is a constant.

  Args:
    levels: 2 to 256, ascending, with 0 and a magnitude of 1: of `quantize.data_types`; by default `normal_levels`, NF4.
    block: so many consecutive entries of the flattened array share a; the last block may be shorter.

  Slots: theta = w; no phi, no state.
  Facts: the bits of a code; the scale a of each weight (never below 2^-20); the levels. No integer kernel multiplies
    by these.

  Raises:
    EffjaxError: levels that do not ascend, without 0 or without a magnitude of 1; a block below 1; weights that are not
      finite.

  Differs from the paper: a is stored in float32; QLoRA quantizes it once more.

  Source: Dettmers, ICLR 2016, arXiv:1511.04561, survey [34]; blocks as in Dettmers, Lewis, Shleifer, Zettlemoyer, ICLR
  2022, arXiv:2110.02861; NF4 as in arXiv:2305.14314.

  >>> rule = blockwise(jnp.array([-1., 0., .5, 1.]))
  >>> rule.apply(*rule.init(jax.random.key(0), jnp.array([2., 1.1, -.3, -2.])), None)
  Array([ 2.,  1.,  0., -2.], dtype=float32)
  """
  levels = check_levels('blockwise', normal_levels() if levels is None else levels)
  check_block('blockwise', block)
  bits = (levels.size - 1).bit_length()

  def init(key, w):
    check_finite('blockwise', w)
    return Slots(w, {}, {})

  def apply(w, phi, state, key):
    largest = floored(block_largest(jax.lax.stop_gradient(w), block))
    code = nearest(over_blocks(jax.lax.stop_gradient(w), largest, block), levels)
    y = levels.at[code].get(mode='clip') * of_entries(largest, w.shape, block)
    return ste.surrogate(y.astype(w.dtype), w, jnp.ones_like(w))

  def facts(slots, hard):
    scale = of_entries(floored(block_largest(slots.theta, block)), slots.theta.shape, block)
    return Fact(bits=jnp.float32(bits), scale=scale, levels=levels)

  return Rule(init, apply, facts)
