"""A space of architectures as data: the operators of every choice, and what searches do with them."""
import difflib
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from effjax import tree
from effjax.errors import EffjaxError
from effjax.search.choice import Choice
from effjax.search.mixed import Decision
from effjax.tree import Path, PyTree

Space = Mapping[Path, tuple[str, ...]]  # the operators of each choice, by the path of its leaf in the parameters
Architecture = Mapping[Path, str]  # the operator that each choice takes


def space_of(net: nn.Module, *args: Any) -> Space:
  """The choices of a supernet in the order in which it calls them, by the path of their leaf in `params`.

  Nothing is computed: the shapes of `net.init(key, *args)` are traced.

  Args:
    net: with `Choice`s or `Decision`s in it.
    args: of a call, such as `x, False`.

  Raises:
    EffjaxError: a network without choices; a choice two of whose operators have one name.

  >>> from effjax.search.choice import Skip
  >>> space_of(Choice((Skip(name='a'), Skip(name='b'))), jnp.ones(3), False)
  {'choice': ('a', 'b')}
  """
  space: dict[Path, tuple[str, ...]] = {}

  def look(method, args, kwargs, context):
    result, module = method(*args, **kwargs), context.module
    if context.method_name == '__call__' and isinstance(module, Choice | Decision):
      names = module.operators if isinstance(module, Decision) else tuple(str(op.name) for op in module.ops)
      space['/'.join((*module.path, 'choice'))] = names
    return result

  with nn.intercept_methods(look):
    jax.eval_shape(lambda key: net.init(key, *args), jax.random.key(0))
  check_space(space)
  return space


def check_space(space: Space) -> None:
  """Whether every choice can be made, by name.

  Raises:
    EffjaxError: no choices, a choice without operators, a choice two of whose operators have one name.

  >>> check_space({'a': ('x', 'x')})
  Traceback (most recent call last):
  effjax.errors.EffjaxError: space: choice 'a' has two operators of one name, ('x', 'x'): give each its own
  """
  if not space:
    raise EffjaxError("space: no choices: give a network with a Choice in it, or {'path': ('operator', ...)}")
  for path, names in space.items():
    if not names:
      raise EffjaxError(f'space: choice {path!r} is empty: give it an operator')
    if len(set(names)) < len(names):
      raise EffjaxError(f'space: choice {path!r} has two operators of one name, {names}: give each its own')


def count(space: Space) -> int:
  """How many architectures there are: `prod_choices n`, exactly.

  Raises:
    EffjaxError: as of `check_space`.

  >>> count({'a': ('x', 'y', 'z'), 'b': ('x', 'y')})
  6
  """
  check_space(space)
  return math.prod(map(len, space.values()))


def encode(space: Space, architecture: Architecture) -> Int[np.ndarray, ' choices']:
  """The number of each choice's operator, in the order of the space.

  Raises:
    EffjaxError: an architecture of another space: a path that is missing or unknown, an operator that is unknown.

  >>> encode({'a': ('x', 'y', 'z'), 'b': ('x', 'y')}, {'b': 'x', 'a': 'z'})
  array([2, 0], dtype=int32)
  """
  check_space(space)
  for path in architecture:
    if path not in space:
      raise EffjaxError(f'architecture: choice {path!r} is not in the space: nearest are {_nearest(path, space)}')
  if missing := [path for path in space if path not in architecture]:
    raise EffjaxError(f'architecture: {len(missing)} of {len(space)} choices are not made, such as {missing[0]!r}: '
                      f'give each an operator')
  for path, name in architecture.items():
    if name not in space[path]:
      raise EffjaxError(f'architecture: choice {path!r} has no operator {name!r}: nearest are '
                        f'{_nearest(name, space[path])}')
  return np.array([names.index(architecture[path]) for path, names in space.items()], np.int32)


def decode(space: Space, indices: Int[Array | np.ndarray, ' choices']) -> Architecture:
  """The architecture of those numbers: `decode(space, encode(space, a)) == a`.

  Raises:
    EffjaxError: another number of indices than of choices; an index that is none.

  >>> decode({'a': ('x', 'y', 'z'), 'b': ('x', 'y')}, np.array([2, 0]))
  {'a': 'z', 'b': 'x'}
  """
  check_space(space)
  if len(indices) != len(space):
    raise EffjaxError(f'decode: {len(indices)} indices, wanted one for each of {len(space)} choices')
  for i, (path, names) in zip(np.asarray(indices), space.items()):
    if not 0 <= i < len(names):
      raise EffjaxError(f'decode: index {i} of choice {path!r}, wanted 0 to {len(names) - 1}')
  return {path: names[i] for i, (path, names) in zip(np.asarray(indices), space.items())}


def draw_indices(key: Array, space: Space) -> Int[Array, ' choices']:
  """Indices of an architecture, uniformly: for `jit` and `vmap`.

  Raises:
    EffjaxError: as of `check_space`.

  >>> draw_indices(jax.random.key(0), {'a': ('x',), 'b': ('x',)})
  Array([0, 0], dtype=int32)
  """
  check_space(space)
  return jax.random.randint(key, (len(space),), 0, _sizes(space))


def mutate_indices(key: Array, space: Space, indices: Int[Array | np.ndarray, ' choices']) -> Int[Array, ' choices']:
  """The indices with one changed: a choice drawn uniformly, of its other operators one uniformly. For `jit` and `vmap`.

  Choices of one operator cannot change, and are not drawn.

  Raises:
    EffjaxError: as of `check_space`; a space of one architecture.

  Source: the mutation of operators of regularized evolution, Real et al., AAAI 2019, arXiv:1802.01548, survey [54].

  >>> mutate_indices(jax.random.key(0), {'a': ('x', 'y'), 'b': ('x',)}, np.array([1, 0]))
  Array([0, 0], dtype=int32)
  """
  if count(space) == 1:
    raise EffjaxError('mutate: the space has one architecture, nothing can change: give a choice two operators')
  where, which = jax.random.split(key)
  sizes, indices = _sizes(space), jnp.asarray(indices)
  i = jax.random.choice(where, np.flatnonzero(sizes > 1))
  n = jnp.asarray(sizes, indices.dtype)[i]
  other = jax.random.randint(which, (), 1, n, indices.dtype)
  return indices.at[i].set((indices[i] + other) % n)


def draw(key: Array, space: Space) -> Architecture:
  """An architecture, uniformly.

  Raises:
    EffjaxError: as of `check_space`.

  >>> draw(jax.random.key(0), {'a': ('x',)})
  {'a': 'x'}
  """
  return decode(space, draw_indices(key, space))


def mutate(key: Array, space: Space, architecture: Architecture) -> Architecture:
  """The architecture with one choice made otherwise, as of `mutate_indices`.

  Raises:
    EffjaxError: as of `encode` and `mutate_indices`.

  >>> mutate(jax.random.key(0), {'a': ('x', 'y')}, {'a': 'y'})
  {'a': 'x'}
  """
  return decode(space, mutate_indices(key, space, encode(space, architecture)))


def one_hot(space: Space,
            architecture: Architecture | Int[Array | np.ndarray, ' choices']) -> dict[Path, Float[Array, ' n']]:
  """For each choice the vector that takes one operator; `put` puts them into parameters.

  Args:
    architecture: by names, or its indices, which may be traced.

  Raises:
    EffjaxError: as of `encode`.

  >>> one_hot({'a': ('x', 'y')}, {'a': 'y'})
  {'a': Array([0., 1.], dtype=float32)}
  """
  indices = encode(space, architecture) if isinstance(architecture, Mapping) else architecture
  return {path: jax.nn.one_hot(indices[i], len(names), dtype=jnp.float32)
          for i, (path, names) in enumerate(space.items())}


def put(params: PyTree, vectors: Mapping[Path, Float[Array, ' n']]) -> PyTree:
  """The parameters with these leaves instead of theirs.

  Raises:
    EffjaxError: a leaf that is not there, or of another shape.

  >>> put({'choice': jnp.ones(2), 'w': 3.}, {'choice': jnp.zeros(2)})
  {'choice': Array([0., 0.], dtype=float32), 'w': 3.0}
  """
  leaves = tree.leaves(params)
  for path, p in vectors.items():
    if path not in leaves:
      raise EffjaxError(f'put: no leaf {path!r}: nearest are {_nearest(path, leaves)}')
    if jnp.shape(leaves[path]) != p.shape:
      raise EffjaxError(f'put: leaf {path!r} has shape {jnp.shape(leaves[path])}, got {p.shape}: is this the '
                        'space of that network?')
  return tree.map_at(lambda path, old: vectors[path].astype(old.dtype), params, vectors)


def _sizes(space):
  return np.array([len(names) for names in space.values()], np.int32)


def _nearest(name, known):
  return difflib.get_close_matches(name, list(known), n=3, cutoff=0.)
