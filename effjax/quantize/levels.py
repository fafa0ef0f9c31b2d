"""Code books: ascending values that codes number, and the nearest of them by bisection."""
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from effjax.errors import EffjaxError

MOST = 256  # levels that a code of one byte numbers


def nearest(x: Float[Array, '*s'], levels: Float[Array, ' k']) -> Int[Array, '*s']:
  """The number of the level nearest to each entry, by bisection; the lower one of a tie.

  >>> nearest(jnp.array([.2, .5, 9.]), jnp.array([0., 1., 2.]))
  Array([0, 0, 2], dtype=int32)
  """
  between = levels[:-1] * .5 + levels[1:] * .5
  return jnp.searchsorted(between, x.astype(levels.dtype)).astype(jnp.int32)


def distinct(levels: Float[Array, ' k']) -> Float[Array, ' k']:
  """The levels in ascending order, none twice: what appeared before is replaced by something beyond the largest.

  For facts, whose levels ascend, of trained values that may meet or cross.

  >>> distinct(jnp.array([2., 0., 2., -1.]))
  Array([-1.,  0.,  2.,  5.], dtype=float32)
  """
  ascending = jnp.sort(levels)
  again = jnp.concatenate([jnp.zeros(1, bool), ascending[1:] == ascending[:-1]])
  step = 1 + jnp.max(jnp.abs(levels))
  beyond = ascending[-1] + step * jnp.cumsum(again).astype(levels.dtype)
  return jnp.sort(jnp.where(again, beyond, ascending))


def check_levels(who: str, levels: Float[Array, ' k'] | np.ndarray) -> Float[Array, ' k']:
  """`levels` as float32: 2 to 256 values that ascend, with an exact 0 and a largest magnitude of 1.

  Raises:
    EffjaxError: other ones. `who` asks.

  >>> check_levels('encode_blocks', np.array([-1., 0., .5]))
  Array([-1. ,  0. ,  0.5], dtype=float32)
  """
  found = np.asarray(levels, np.float32)
  if not (found.ndim == 1 and 2 <= found.size <= MOST and (np.diff(found) > 0).all()):
    raise EffjaxError(f'{who}: levels must be 2 to {MOST} ascending values, got an array of shape {found.shape}'
                      f'{" that does not ascend" if found.ndim == 1 and 2 <= found.size <= MOST else ""}: sort them, '
                      'without duplicates')
  if not ((found == 0).any() and np.abs(found).max() == 1):
    raise EffjaxError(f'{who}: levels must contain 0 and reach a magnitude of 1, got {found[0]:.4g} to '
                      f'{found[-1]:.4g}{"" if (found == 0).any() else " without 0"}: divide them by the largest one')
  return jnp.asarray(found)
