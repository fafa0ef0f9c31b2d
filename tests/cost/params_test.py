"""Parameters against the sizes of the arrays that `shrink` leaves."""
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import cost, graph, tree
from effjax.reparam import CHANNELS, Fact

spec = importlib.util.spec_from_file_location('networks', pathlib.Path(__file__).parents[1] / 'graph' / 'networks.py')
networks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(networks)
TABLE = networks.table()
CHOICE = np.array([.2, .5, .3])


@pytest.fixture(autouse=True)
def _loose():
  """Flax's own layers promote ranks and dtypes."""
  with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
    yield


def size(params):
  return sum(w.size for w in tree.leaves(params).values())


def keep_of(found, seed, share=.6):
  keep = np.random.default_rng(seed).random(found.size) < share
  for group in range(found.groups.max() + 1):
    keep[np.flatnonzero(found.groups == group)[:2]] = True
  return keep


def mixed(p, x):
  """Three operators, of which the first has three hidden channels and a bias."""
  c = p['c']
  h = jax.nn.relu(x @ p['a'] + p['bias'])
  return (c[0] * (h @ p['b']) + c[1] * (x @ p['d']) + c[2] * x) @ p['e'] + p['out']


PARAMS = {'a': jnp.ones((4, 3)), 'b': jnp.ones((3, 4)), 'bias': jnp.ones((1, 3)), 'c': jnp.ones(3) / 3,
          'd': jnp.ones((4, 4)), 'e': jnp.ones((4, 2)), 'out': jnp.ones((1, 2))}
X = jnp.ones((1, 4))


@pytest.mark.parametrize('name', TABLE)
def test_hard_facts_count_the_shrunk_network(name):
  fn, params, x = TABLE[name]
  found, profile = graph.channels(fn, params, x), graph.profile(fn, params, x)
  assert float(cost.params(profile, {})) == size(params)
  keep = keep_of(found, 3)
  _, less = graph.shrink(fn, params, keep, x)
  assert float(cost.params(profile, {CHANNELS: Fact(keep=jnp.asarray(keep, jnp.float32))})) == size(less)


def test_the_gradient_is_what_removing_a_channel_takes_away():
  fn, params, x = TABLE['Plain']
  found, profile = graph.channels(fn, params, x), graph.profile(fn, params, x)
  got = jax.grad(lambda k: cost.params(profile, {CHANNELS: Fact(keep=k)}))(jnp.ones(found.size))
  for channel in (0, found.size - 1):
    _, less = graph.shrink(fn, params, np.arange(found.size) != channel, x)
    assert float(got[channel]) == size(params) - size(less)


@pytest.mark.parametrize('entry', range(3))
def test_an_operator_that_is_not_chosen_has_no_parameters(entry):
  profile = graph.profile(mixed, PARAMS, X)
  found = graph.channels(mixed, PARAMS, X)
  _, less = graph.shrink(mixed, PARAMS, np.ones(found.size, bool), X, choose={'c': entry})
  assert float(cost.params(profile, {'c': Fact(choice=jnp.eye(3)[entry])})) == size(less)


def test_the_expectation_is_the_mean_over_all_choices_and_channels():
  profile, found = graph.profile(mixed, PARAMS, X), graph.channels(mixed, PARAMS, X)
  keep = np.linspace(.2, .9, found.size)
  facts = {'c': Fact(choice=jnp.asarray(CHOICE, jnp.float32)), CHANNELS: Fact(keep=jnp.asarray(keep, jnp.float32))}
  hidden = keep[found.members['a'][1]].sum()
  want = CHOICE[0] * (4 + 4 + 1) * hidden + CHOICE[1] * 16 + 8 + 2
  np.testing.assert_allclose(cost.params(profile, facts), want, rtol=1e-6)


def test_a_shared_leaf_counts_once_and_always_if_one_use_is_not_guarded():
  fn = lambda p, x: (p['c'][0] * (x @ p['w']) + p['c'][1] * x) @ p['w']
  profile = graph.profile(fn, {'w': jnp.ones((4, 4)), 'c': jnp.ones(2)}, X)
  assert float(cost.params(profile, {})) == 18.
  assert float(cost.params(profile, {'c': Fact(choice=jnp.array([0., 1.]))})) == 16.
