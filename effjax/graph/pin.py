"""Entries that a user wants to keep, whatever is asked of the rest."""
from collections.abc import Callable

from jax.ad_checkpoint import checkpoint_name

from effjax import tree
from effjax.graph.rules import PIN
from effjax.tree import Path


def pin(fn: Callable, where: str | Callable[[Path], bool]) -> Callable:
  """The same function, in which no entry of the parameters that match `where` can go.

  Give it to `channels`, `shrink` and the others in place of `fn`. Within a model, `checkpoint_name(x, 'effjax.pin')`
  of `jax.ad_checkpoint` does the same to an activation `x`.

  Args:
    where: regular expression for the whole path, or a predicate on it.

  Raises:
    EffjaxError: `where` matches nothing (when the function is called or traced; the nearest paths are printed).

  >>> import jax.numpy as jnp
  >>> from effjax.graph.channels import channels
  >>> fn = lambda p, x: x @ p['a'] @ p['b']
  >>> params = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}
  >>> channels(fn, params, jnp.ones((1, 3))).size, channels(pin(fn, 'a'), params, jnp.ones((1, 3))).size
  (4, 0)
  """
  def pinned(params, *args):
    kept = tree.select(where, params)
    return fn(tree.map_at(lambda _, w: checkpoint_name(w, PIN), params, kept), *args)
  return pinned
