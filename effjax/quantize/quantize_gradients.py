"""Gradients in few bits, right on average: what workers would send to each other."""
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from effjax.errors import EffjaxError
from effjax.quantize.data_types import Levels, of_entries, over_blocks, rows
from effjax.quantize.draws import drawn, draws
from effjax.quantize.granularity import check_block
from effjax.quantize.levels import check_levels


def quantize_gradients(levels: Levels, key: Key[Array, ''], *, block: int = 256) -> optax.GradientTransformation:
  """Every gradient becomes `levels[k] a`, one of the two levels around `g / a`, drawn so that its mean is g.

  The upper level l' is drawn with probability `(g / a - l) / (l' - l)`. The scale a of a block is the least that has
  all of it between the first level and the last, which differ in magnitude for `dynamic_levels`.

  Args:
    levels: of `quantize.data_types`, e.g. `linear_levels(4)`; with values on both sides of 0.
    key: each leaf and step draws with one of its own.
    block: so many consecutive entries share a.

  State: the key and the step.

  Raises:
    EffjaxError: levels that do not ascend, without 0, without a magnitude of 1, or of one sign; a block below 1.

  Differs from the paper: drawn, where it rounds to nearest, so that errors of many steps and workers cancel.

  Source: Dettmers, ICLR 2016, arXiv:1511.04561, survey [34]; drawn as in Alistarh, Grubic, Li, Tomioka, Vojnovic,
  "QSGD", NeurIPS 2017, arXiv:1610.02132.

  >>> from effjax.quantize.data_types import linear_levels
  >>> tx = quantize_gradients(linear_levels(2), jax.random.key(0))
  >>> gradient = jnp.array([.1, -.9, .5, 2.])
  >>> tx.update(gradient, tx.init(gradient))[0]
  Array([ 0., -2.,  0.,  2.], dtype=float32)
  """
  levels = check_levels('quantize_gradients', levels)
  check_block('quantize_gradients', block)
  if not float(levels[0]) < 0 < float(levels[-1]):
    raise EffjaxError(f'quantize_gradients: levels must be on both sides of 0, got {float(levels[0]):.4g} to '
                      f'{float(levels[-1]):.4g}: gradients are')

  def update(updates, state, params=None):
    return drawn(state, lambda key, g: _drawn(key, g, levels, block).astype(g.dtype), updates)

  return optax.GradientTransformation(lambda params: draws(key), update)


def _drawn(key, g, levels, block) -> Float[Array, '*s']:
  by_block = rows(g, block)
  scale = jnp.maximum(jnp.max(by_block, 1) * (1 / levels[-1]), jnp.max(-by_block, 1) * (1 / -levels[0]))
  ratio = over_blocks(g, scale, block)
  below = jnp.clip(jnp.searchsorted(levels, ratio, side='right') - 1, 0, levels.size - 2)
  low, high = levels[below], levels[below + 1]
  up = jax.random.uniform(key, g.shape, jnp.float32) * (high - low) < ratio - low
  return jnp.where(up, high, low) * of_entries(scale, g.shape, block)
