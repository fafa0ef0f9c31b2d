"""NAS-Bench-Macro: parameters and multiply-accumulates of the benchmark's table, the supernet against its networks."""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import graph, tree
from effjax.errors import EffjaxError
from effjax.graph.profile import counts
from effjax.search.derived import Derived
from effjax.search.encoding import count, decode, draw, encode, one_hot, put, space_of
from effjax.search.nas_bench_macro import OPERATORS, SPACE, NASBenchMacro

KEY = jax.random.key(0)
TABLE = pathlib.Path(__file__).parents[2] / '../shared/data/nas/nasbench_macro.npz'
X = jax.random.normal(KEY, (2, 16, 16, 3))
IMAGE = jnp.ones((1, 32, 32, 3))
TINY = dict(width=1 / 16)
MORE = np.array([(0, 0, 0, 0, 0, 0, 0, 0),
                 (8_416, 27_200, 31_168, 103_552, 103_552, 119_680, 403_712, 403_712),
                 (21_952, 60_416, 76_672, 219_136, 219_136, 284_416, 831_488, 831_488)])  # than the identity, per layer
ARCHITECTURES = [*(dict.fromkeys(SPACE, name) for name in OPERATORS), draw(KEY, SPACE), draw(jax.random.key(1), SPACE)]


def counted(architecture):
  """(parameters, multiply-accumulates) of the network of an architecture."""
  net = Derived(NASBenchMacro(10), architecture)
  variables = jax.eval_shape(lambda: net.init(KEY, IMAGE, False))
  statistics = jax.tree.map(lambda x: jnp.zeros(x.shape), variables['batch_stats'])
  fn = lambda params, x: net.apply({'params': params, 'batch_stats': statistics}, x, False)
  rows = graph.profile(fn, variables['params'], IMAGE).rows
  return sum(x.size for x in jax.tree.leaves(variables['params'])), sum(counts(row).macs for row in rows)


@pytest.fixture(scope='module')
def supernet():
  """A supernet and variables of it that are all away from where they start."""
  net, random = NASBenchMacro(10, **TINY), np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: net.init(KEY, X, False))
  return net, jax.tree.map(lambda x: jnp.asarray(random.uniform(.1, .5, x.shape), jnp.float32), shapes)


@pytest.mark.parametrize('architecture', ARCHITECTURES, ids=lambda a: str(encode(SPACE, a)))
def test_parameters_are_those_of_the_closed_form(architecture):
  params = jax.eval_shape(lambda: Derived(NASBenchMacro(10), architecture).init(KEY, IMAGE, False))['params']
  assert sum(x.size for x in jax.tree.leaves(params)) == 387_882 + MORE[encode(SPACE, architecture), range(8)].sum()


@pytest.mark.skipif(not TABLE.exists(), reason='no table of the benchmark beside the project')
def test_counts_are_those_of_the_table():
  with np.load(TABLE) as table:
    rows, parameters, flops = table['arch'], table['params'], table['flops']
  assert len(np.unique(rows, axis=0)) == len(rows) == count(SPACE) == 6_561
  np.testing.assert_array_equal(parameters, 387_882 + MORE[rows, range(8)].sum(1))
  for i in (0, 1, 2, 3_280, 4_000, 6_560):
    assert counted(decode(SPACE, rows[i])) == (parameters[i], flops[i])


@pytest.mark.parametrize('architecture', ARCHITECTURES, ids=lambda a: str(encode(SPACE, a)))
def test_a_one_hot_supernet_is_the_network_of_the_architecture(supernet, architecture):
  net, variables = supernet
  chosen = {**variables, 'params': put(variables['params'], one_hot(SPACE, architecture))}
  alone = Derived(NASBenchMacro(10, **TINY), architecture)
  np.testing.assert_allclose(net.apply(chosen, X, False), alone.apply(variables, X, False), rtol=1e-5, atol=1e-5)


def test_the_space_is_that_of_the_supernet(supernet):
  assert space_of(supernet[0], X, False) == SPACE


@pytest.mark.slow
def test_forward_and_backward_reach_every_leaf(supernet):
  """Slow since no two layers have one width; `Choice` and the blocks have tests of their own."""
  net, variables = supernet

  def loss(params):
    y, _ = net.apply({**variables, 'params': params}, X, True, mutable=['batch_stats'])
    return jnp.sum(jnp.sin(y) * jnp.arange(1., 21.).reshape(2, 10))

  assert [path for path, g in tree.leaves(jax.grad(loss)(variables['params'])).items() if not np.any(g)] == []


def at_once(**options):
  return lambda: NASBenchMacro(10, **options).init(KEY, X, False)


ERRORS = {
    'NASBenchMacro: width=0.01 leaves none of 32 channels: wanted 1/64 or more': at_once(width=.01)}


@pytest.mark.parametrize('text', ERRORS)
def test_errors(text):
  with pytest.raises(EffjaxError) as error:
    ERRORS[text]()
  assert str(error.value).startswith(text)
