import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from effjax import graph
from effjax.errors import EffjaxError

PARAMS = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 5)), 'c': jnp.ones((5, 2))}
X = jnp.ones((1, 3))


def fn(p, x):
  return jax.nn.relu(jax.nn.relu(x @ p['a']) @ p['b']) @ p['c']


def test_what_is_pinned_stays_and_the_rest_can_go():
  pinned = graph.pin(fn, 'a')
  found = graph.channels(pinned, PARAMS, X)
  assert found.size == 5 and (found.members['a'][1] < 0).all()
  small, less = graph.shrink(pinned, PARAMS, np.array([True, False, True, False, False]), X)
  assert jax.tree.map(jnp.shape, less) == {'a': (3, 4), 'b': (4, 2), 'c': (2, 2)}
  np.testing.assert_array_equal(small(less, X), fn(PARAMS, X) * 2 / 5)


def test_a_model_can_pin_an_activation():
  marked = lambda p, x: checkpoint_name(jax.nn.relu(x @ p['a']), 'effjax.pin') @ p['b'] @ p['c']
  assert graph.channels(marked, PARAMS, X).size == 5
  other = lambda p, x: checkpoint_name(jax.nn.relu(x @ p['a']), 'another name') @ p['b'] @ p['c']
  assert graph.channels(other, PARAMS, X).size == 9


def test_a_pattern_that_matches_nothing():
  with pytest.raises(EffjaxError, match="pattern 'd' matches none of 3 leaves"):
    graph.channels(graph.pin(fn, 'd'), PARAMS, X)
