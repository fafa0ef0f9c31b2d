"""Random keys for optimizer parts that draw: one for each step and each leaf, out of the state."""
from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Int, Key

from effjax import schedule, tree
from effjax.tree import PyTree


class Draws(NamedTuple):
  """The state of an optimizer part that draws: the key it was given and the steps done. It survives a checkpoint."""
  key: Key[Array, '']
  step: Int[Array, '']


def draws(key: Key[Array, '']) -> Draws:
  """The first state.

  >>> int(draws(jax.random.key(0)).step)
  0
  """
  return Draws(key, schedule.start())


def drawn(state: Draws, f: Callable, updates: PyTree, *others: PyTree) -> tuple[PyTree, Draws]:
  """`f(key, update, *other)` of every leaf, each with a key of its own, and the state for the next step.

  >>> values, _ = drawn(draws(jax.random.key(0)), lambda key, x: jax.random.uniform(key), {'a': 1, 'b': 2})
  >>> bool(values['a'] != values['b'])
  True
  """
  key = jax.random.fold_in(state.key, state.step)
  keyed = lambda path, *leaves: f(tree.fold(key, tree.path_string(path)), *leaves)
  return jax.tree_util.tree_map_with_path(keyed, updates, *others), Draws(state.key, schedule.advance(state.step))
