"""The rank of a low-rank pair is a channel like any other: costs are differentiable in it, and hard ranks are removed."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import cost, graph
from effjax.cost import Entry, LatencyTable, Op
from effjax.reparam import CHANNELS, Fact

RANK = 5
X = jnp.ones((1, 6, 6, 3))
KEEP = np.array([1, .7, .4, .2, 0])
DENSE = LatencyTable(tuple(Entry('float32', Op('dense', (1, 1), 1, 1, 1, (1, 1), a, b), a * b / 100)
                    for a in (1, 8) for b in (1, 8)), 0., {})


def two_steps(p, x):
  """`(x u) v`"""
  return jnp.mean(x, (1, 2)) @ p['u'] @ p['v']


def convolutions(p, x):
  """3x3 to the rank, then 1x1, as a decomposed convolution runs."""
  for name in 'uv':
    x = jax.lax.conv_general_dilated(x, p[name], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  return x


def one_matrix(p, x):
  """`x (u v)`"""
  return jnp.mean(x, (1, 2)) @ (p['u'] @ p['v'])


MATRICES = {'u': jnp.ones((3, RANK)), 'v': jnp.ones((RANK, 4))}
KERNELS = {'u': jnp.ones((3, 3, 3, RANK)), 'v': jnp.ones((1, 1, RANK, 4))}
PAIRS = {'two_steps': (two_steps, MATRICES, 3 + 4, 3 + 4), 'one_matrix': (one_matrix, MATRICES, 3 + 4, None),
         'convolutions': (convolutions, KERNELS, 27 + 4, 36 * (27 + 4))}  # parameters and MACs of each rank


def facts(keep):
  return {CHANNELS: Fact(keep=jnp.asarray(keep, jnp.float32))}


@pytest.mark.parametrize('name', PAIRS)
def test_the_rank_is_one_group_of_channels(name):
  fn, params, _, _ = PAIRS[name]
  found = graph.channels(fn, params, X)
  assert found.size == RANK and set(found.groups) == {0}
  np.testing.assert_array_equal(found.members['u'][-1], found.members['v'][-2])


@pytest.mark.parametrize('name', PAIRS)
def test_costs_are_linear_in_the_kept_ranks(name):
  fn, params, parameters, macs = PAIRS[name]
  profile = graph.profile(fn, params, X)
  for each, unit in ((cost.params, parameters), (cost.macs, macs)):
    if unit is not None:
      np.testing.assert_allclose(each(profile, facts(KEEP)), unit * KEEP.sum(), rtol=1e-6)
      np.testing.assert_allclose(jax.grad(lambda k, each=each: each(profile, facts(k)))(jnp.asarray(KEEP, jnp.float32)),
                                 np.full(RANK, unit), rtol=1e-6)


@pytest.mark.parametrize('each', [cost.bitops, cost.flash_bytes, cost.params, cost.macs])
@pytest.mark.parametrize('name', PAIRS)
def test_a_hard_rank_is_removed(name, each):
  fn, params, _, _ = PAIRS[name]
  keep = KEEP > .3
  small, less = graph.shrink(fn, params, keep, X)
  assert less['u'].shape[-1] == less['v'].shape[-2] == 3
  assert float(each(graph.profile(fn, params, X), facts(keep))) == float(each(graph.profile(small, less, X), {}))


def test_latency_and_memory_have_a_gradient_in_the_rank():
  profile = graph.profile(two_steps, MATRICES, X)
  ms = lambda k: cost.latency(profile, facts(k), table=DENSE)
  np.testing.assert_allclose(jax.grad(ms)(jnp.asarray(KEEP, jnp.float32)), np.full(RANK, .07), rtol=1e-5)
  ram = lambda k: cost.peak_ram(graph.profile(convolutions, KERNELS, X), facts(k))
  np.testing.assert_allclose(jax.grad(ram)(jnp.ones(RANK)), np.full(RANK, 36.), rtol=1e-6)
