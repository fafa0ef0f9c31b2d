"""Paths and selections over any pytree.

A path is the string `jax.tree_util.keystr(..., simple=True, separator='/')`, e.g. `params/stem/kernel`.
"""
import difflib
import re
import zlib
from collections.abc import Callable, Collection
from typing import Any

import jax

from effjax.errors import EffjaxError

Path = str
PyTree = Any


def path_string(path: tuple) -> Path:
  """A key path as JAX gives it, as `a/b/0/c`.

  >>> path_string((jax.tree_util.DictKey('a'), jax.tree_util.SequenceKey(0)))
  'a/0'
  """
  return jax.tree_util.keystr(path, simple=True, separator='/')


def leaves(tree: PyTree) -> dict[Path, Any]:
  """The leaves of a tree by path, in flattening order.

  >>> leaves({'b': {'w': 1}, 'a': [2, 3]})
  {'a/0': 2, 'a/1': 3, 'b/w': 1}
  """
  return {path_string(p): leaf for p, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def select(where: str | Callable[[Path], bool], tree: PyTree) -> list[Path]:
  """Paths of the leaves that `where` names: a regular expression for the whole path, or a predicate.

  Raises:
    EffjaxError: nothing matches (the nearest paths are printed), or it is no regular expression.

  >>> select('.*kernel', {'conv': {'kernel': 1., 'bias': 0.}})
  ['conv/kernel']
  """
  known = list(leaves(tree))
  matches = where if callable(where) else _pattern(where).fullmatch
  found = [path for path in known if matches(path)]
  if not found:
    near = difflib.get_close_matches(str(where), known, n=5, cutoff=0.) if not callable(where) else known[:5]
    raise EffjaxError(f'pattern {where!r} matches none of {len(known)} leaves: nearest are {near}; '
                      'a pattern must match the whole path')
  return found


def _pattern(where):
  try:
    return re.compile(where)
  except re.error as error:
    raise EffjaxError(f'pattern {where!r} is not a regular expression ({error}): escape what is meant '
                      'literally') from error


def map_at(f: Callable[[Path, Any], Any], tree: PyTree, paths: Collection[Path]) -> PyTree:
  """`tree` with every subtree (or leaf) at one of `paths` replaced by `f(path, subtree)`.

  >>> map_at(lambda path, x: x + 1, {'a': 1, 'b': 2}, {'a'})
  {'a': 2, 'b': 2}
  """
  owned = set(paths)
  chosen = lambda path, node: path_string(path) in owned
  return jax.tree_util.tree_map_with_path(
      lambda path, node: f(path_string(path), node) if path_string(path) in owned else node,
      tree, is_leaf=chosen, is_leaf_takes_path=True)


def fold(key: jax.Array | None, path: Path) -> jax.Array | None:
  """A key of its own for a path: stable under other leaves coming and going. None stays None.

  >>> bool((fold(jax.random.key(0), 'a') == fold(jax.random.key(0), 'b')))
  False
  """
  return None if key is None else jax.random.fold_in(key, zlib.crc32(path.encode()))
