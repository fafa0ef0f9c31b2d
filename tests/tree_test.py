"""Paths, selections and keys."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effjax import tree
from effjax.errors import EffjaxError


class Pair(NamedTuple):
  first: object
  second: object


TREE = {'params': {'conv': {'kernel': 1., 'bias': 2.}, 'list': [3., (4., 5.)]}, 'pair': Pair(6., None)}


def test_paths_of_dicts_lists_tuples_and_named_tuples():
  assert list(tree.leaves(TREE)) == ['pair/first', 'params/conv/bias', 'params/conv/kernel', 'params/list/0',
                                     'params/list/1/0', 'params/list/1/1']


def test_select_matches_the_whole_path():
  assert tree.select('.*/kernel', TREE) == ['params/conv/kernel']
  assert tree.select(lambda path: path.startswith('pair'), TREE) == ['pair/first']


@pytest.mark.parametrize(('where', 'near'), [
    ('kernel', r"nearest are \['params/conv/kernel'.*\]; a pattern must match the whole path"),
    (lambda path: False, r"nearest are \['pair/first', 'params/conv/bias'")])
def test_matching_nothing_prints_the_nearest(where, near):
  with pytest.raises(EffjaxError, match='matches none of 6 leaves: ' + near):
    tree.select(where, TREE)


def test_map_at_takes_leaves_subtrees_and_none():
  seen = {}
  out = tree.map_at(lambda path, x: seen.setdefault(path, x), TREE, {'params/conv', 'pair/second', 'params/list/0'})
  assert seen == {'params/conv': {'bias': 2., 'kernel': 1.}, 'pair/second': None, 'params/list/0': 3.}
  assert out == TREE
  assert tree.map_at(lambda path, x: 0., TREE, {'params'}) == {'params': 0., 'pair': Pair(6., None)}


def test_fold_is_stable_different_by_path_and_keeps_none():
  key = jax.random.key(3)
  data = {path: tuple(jax.random.key_data(tree.fold(key, path)).tolist()) for path in ('a', 'b', 'a/b', 'b/a')}
  assert len(set(data.values())) == 4
  assert data['a'] == tuple(jax.random.key_data(tree.fold(key, 'a')).tolist())
  assert tree.fold(None, 'a') is None


@settings(max_examples=20, deadline=None)
@given(st.recursive(st.floats(0, 1), lambda inner: st.dictionaries(st.sampled_from('abc'), inner, min_size=1)
                    | st.lists(inner, min_size=1, max_size=3), max_leaves=8))
def test_leaves_and_map_at_reach_every_leaf(values):
  by_path = tree.leaves(values)
  assert list(by_path.values()) == jax.tree.leaves(values)
  assert jax.tree.leaves(tree.map_at(lambda path, x: x + 1., values, by_path)) == [x + 1. for x in by_path.values()]


def test_paths_do_not_change_under_jit():
  paths = []
  jax.jit(lambda t: paths.append(list(tree.leaves(t))))({'a': jnp.ones(2), 'b': {'c': jnp.ones(1)}})
  assert paths == [['a', 'b/c']]
