"""The sum of candidates, and what must not be summed."""
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import tree
from effjax.errors import EffjaxError
from effjax.layers import ConvBN
from effjax.search.choice import Choice, Skip, check_choice
from effjax.search.darts_space import DARTSSpace
from effjax.search.mbconv import MBConvNet
from effjax.search.mixed import Mixed
from effjax.search.nas_bench_201 import NASBench201

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 4, 4, 3))


def test_the_sum_and_the_parameter():
  net = Choice((ConvBN(3, name='conv'), Skip(name='skip')))
  y, variables = net.init_with_output(KEY, X, False)
  np.testing.assert_array_equal(variables['params']['choice'], [0.5, 0.5])
  assert sorted(variables['params']) == ['choice', 'conv'] and 'conv' in variables['batch_stats']
  one = ConvBN(3).apply({name: part['conv'] for name, part in variables.items()}, X, False)
  np.testing.assert_allclose(y, 0.5 * one + 0.5 * X, rtol=1e-6)
  for p, alone in zip(np.eye(2, dtype=np.float32), (one, X)):
    variables['params']['choice'] = jnp.asarray(p)
    np.testing.assert_array_equal(net.apply(variables, X, False), alone)


def test_candidates_without_names_are_numbered():
  variables = Choice((ConvBN(3), ConvBN(3, 1))).init(KEY, X, False)
  assert sorted(variables['params']) == ['choice', 'ops_0', 'ops_1']


def test_the_mode_reaches_every_candidate():
  net = Choice((ConvBN(3, name='a'), ConvBN(3, name='b')))
  variables = net.init(KEY, X, False)
  _, new = net.apply(variables, X, True, mutable=['batch_stats'])
  for name in 'ab':
    assert bool(jnp.any(new['batch_stats'][name]['bn']['mean'] != 0))


def test_candidates_of_different_shapes_are_refused():
  class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
      return Choice((Skip(parent=None, name='skip'), ConvBN(5, parent=None, name='wide')), name='block1')(x, False)

  with pytest.raises(EffjaxError, match=r"Choice block1: candidate 'wide' gives shape \(2, 4, 4, 5\), candidate 'skip' "
                                        r'gives \(2, 4, 4, 3\): all candidates must give one shape'):
    Block().init(KEY, X)


def test_an_empty_choice_is_refused():
  with pytest.raises(EffjaxError, match=r'Choice \(top\): no candidates for an input of shape \(2, 4, 4, 3\)'):
    Choice(()).init(KEY, X, False)


def test_a_kernel_is_not_a_choice():
  with pytest.raises(EffjaxError, match=r"gumbel: wants the vector of a Choice, got an array of shape \(3, 3\): nar"):
    check_choice('gumbel', jnp.ones((3, 3)))


def eight(paths=None):
  return Choice(tuple(ConvBN(3, name=f'op{i}') for i in range(8)), paths)


@functools.cache
def step(paths=None):
  """A jitted function of (variables, p): loss, gradients by parameters and p, new statistics."""
  def loss(params, p, variables):
    y, new = eight(paths).apply({**variables, 'params': params | {'choice': p}}, X, True, mutable=['batch_stats'])
    return jnp.sum(jnp.sin(y)), new['batch_stats']
  grad = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
  return lambda variables, p: grad(variables['params'], p, variables)


@functools.cache
def start():
  return jax.jit(lambda: eight().init(KEY, X, False))()


@pytest.mark.parametrize('i', [0, 5])
def test_one_path_is_the_sum_with_a_one_hot_and_leaves_the_others_alone(i):
  variables, p = start(), jnp.eye(8)[i]
  (want, stats), (dparams, dp) = step()(variables, p)
  (got, new), (gparams, gp) = step(1)(variables, p)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), gparams, dparams)
  np.testing.assert_allclose(gp, jnp.where(p > 0, dp, 0.), rtol=1e-5)
  assert bool(jnp.any(dp[p == 0] != 0))
  for j in range(8):
    after = stats if i == j else variables['batch_stats']
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), new[f'op{j}'], after[f'op{j}'])


@pytest.mark.parametrize(('i', 'j', 'beside'), [(0, 5, .4), (6, 2, .6), (6, 2, float(np.finfo(np.float32).tiny))])
def test_two_paths_are_the_sum_with_two_entries_and_leave_the_others_alone(i, j, beside):
  variables, p = start(), jnp.zeros(8).at[jnp.array([i, j])].set(jnp.array([.6, beside]))
  (want, stats), (dparams, dp) = step()(variables, p)
  (got, new), (gparams, gp) = step(2)(variables, p)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), gparams, dparams)
  np.testing.assert_allclose(gp, jnp.where(p > 0, dp, 0.), rtol=1e-5)
  assert gp[i] != 0 and gp[j] != 0 and np.count_nonzero(gp) == 2
  for k in range(8):
    after = stats if k in (i, j) else variables['batch_stats']
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), new[f'op{k}'], after[f'op{k}'])


@pytest.mark.parametrize('paths', [1, 2])
def test_paths_of_many_choices_at_once_and_their_dtype(paths):
  ops = lambda: tuple(ConvBN(3, name=f'op{i}', dtype=jnp.bfloat16) for i in range(4))
  variables, x = Mixed(ops()).init(KEY, X, jnp.ones(4), False), X.astype(jnp.bfloat16)
  ps = jnp.eye(4) * .5 + jnp.roll(jnp.eye(4), 1, 0) * (.25 if paths == 2 else 0.)
  run = lambda paths: jax.jit(jax.vmap(lambda p: Mixed(ops(), paths).apply(variables, x, p, False)))(ps)
  got, want = run(paths), run(None)
  assert got.dtype == want.dtype == jnp.bfloat16 and len(np.unique(np.float32(got), axis=0)) == 4
  np.testing.assert_allclose(np.float32(got), np.float32(want), rtol=.02, atol=.01)


def test_two_paths_of_a_single_operator_are_one():
  net = Choice((Skip(name='a'),), paths=2)
  np.testing.assert_array_equal(net.apply({'params': {'choice': jnp.array([.5])}}, X, False), .5 * X)


def test_no_path_is_refused():
  with pytest.raises(EffjaxError, match=r'^Choice \(top\): paths=0, wanted 1 or more, or None for all operators'):
    eight(0).init(KEY, X, False)


def test_paths_take_the_memory_of_as_many_operators():
  class Chain(nn.Module):
    paths: int | None

    @nn.compact
    def __call__(self, x, p):
      for k in range(3):
        x = Mixed(tuple(ConvBN(8, name=f'op{i}', parent=None) for i in range(8)), self.paths, name=f'm{k}')(x, p, True)
      return x.mean()

  x, p = jnp.ones((8, 16, 16, 8)), jnp.eye(8)[2]
  variables = jax.eval_shape(lambda: Chain(None).init(KEY, x, p))

  def bytes_of(paths):
    loss = lambda variables: Chain(paths).apply(variables, x, p, mutable=['batch_stats'])
    return jax.jit(jax.grad(loss, has_aux=True)).lower(variables).compile().memory_analysis().temp_size_in_bytes

  dense, one, two = bytes_of(None), bytes_of(1), bytes_of(2)
  assert one < .4 * dense
  assert one < two < .6 * dense


@pytest.mark.parametrize('paths', [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize('make', [
    lambda **how: MBConvNet(3, 4, blocks=((4, 1), (8, 2)), operators=('mb3_k3', 'sep_k3', 'skip'), head=8, **how),
    pytest.param(lambda **how: NASBench201(3, features=4, cells=1, **how), marks=pytest.mark.slow),
    pytest.param(lambda **how: DARTSSpace(3, features=2, cells=1, operators=('none', 'sep_conv_3x3', 'max_pool_3x3'),
                                          **how), marks=pytest.mark.slow)],
    ids=['mbconv', 'nas_bench_201', 'darts'])
def test_some_paths_in_every_space(make, paths):
  x = jax.random.normal(KEY, (2, 16, 16, 3))
  variables = jax.jit(lambda: make().init(KEY, x, False))()
  which = lambda path, p: (jnp.arange(len(p)) + len(path)) % len(p) < paths
  open_ones = lambda path, p: jnp.where(which(path, p), 1 / paths, 0.) if path.endswith('choice') else p
  params = tree.map_at(open_ones, variables['params'], tree.leaves(variables['params']))

  def loss(params, how):
    y, new = make(**how).apply({**variables, 'params': params}, x, True, mutable=['batch_stats'])
    return jnp.sum(jnp.sin(y)), y

  run = lambda **how: jax.jit(jax.grad(lambda params: loss(params, how), has_aux=True))(params)
  (want, y), (got, z) = run(), run(paths=paths)
  np.testing.assert_allclose(z, y, rtol=1e-4, atol=1e-5)
  for path, g in tree.leaves(got).items():
    if not path.endswith('choice'):
      np.testing.assert_allclose(g, tree.leaves(want)[path], rtol=1e-3, atol=1e-4)
