"""ENAS' chain of layers: the size of the space, the supernet against each network in it, what the graph sees."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import cost, graph, tree
from effjax.errors import EffjaxError
from effjax.layers import BatchNorm, ConvBN, Dense, FactorizedReduce, SeparableConv, avg_pool, max_pool
from effjax.reparam import Fact, at, chain
from effjax.search import softmax
from effjax.search.derived import Derived
from effjax.search.enas_macro import OPERATORS, ENASMacro, MacroOperator
from effjax.search.encoding import count, encode, one_hot, put, space_of

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 8, 8, 3))
NET = ENASMacro(3, features=2, layers=3, operators=('conv_3x3', 'max_pool_3x3'))
SHORT = ENASMacro(3, features=2, layers=2, operators=('conv_3x3', 'max_pool_3x3'))  # nothing is halved
SPACE, FEW = space_of(NET, X, False), space_of(SHORT, X, False)


def variables_of(net):
  """Variables that are all away from where they start."""
  random = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: net.init(KEY, X, False))
  return jax.tree.map(lambda x: jnp.asarray(random.uniform(.1, .5, x.shape), jnp.float32), shapes)


def test_the_size():
  layers, space = 12, space_of(ENASMacro(10, features=2), jnp.ones((1, 4, 4, 1)), False)
  assert count(space) == len(OPERATORS) ** layers * 2 ** (layers * (layers - 1) // 2) == 6**12 * 2**66
  assert f'{count(space):.3e}' == '1.606e+29'


def by_hand(architecture, variables):
  """The network of one architecture, from layers alone."""
  def run(module, path, x):
    at_path = lambda part: functools.reduce(lambda part, name: part.get(name, {}), path.split('/'), part)
    return module.apply({kind: at_path(part) for kind, part in variables.items()}, x, False)
  same = dict(epsilon=1e-5)
  states = [run(ConvBN(2, 3, activation=None, **same), 'stem', X)]
  for k in (1, 2, 3):
    name = architecture[f'layer{k}/choice']
    y = run(ConvBN(2, 1, activation=jax.nn.relu, **same), f'layer{k}/{name}/fit', states[-1])
    if name == 'conv_3x3':
      y = run(ConvBN(2, 3, activation=jax.nn.relu, **same), f'layer{k}/{name}/conv', y)
    else:
      y = max_pool(y, 3, 1, 'SAME')
    if k > 1:
      added = [i for i in range(k - 1) if architecture[f'layer{k}_skip{i}/choice'] == 'skip_connect']
      y = run(BatchNorm(**same), f'layer{k}_bn', y + sum(states[i] for i in added))
    states.append(y)
    if k < 3:
      states = [run(FactorizedReduce(2, **same), f'reduce{k}_state{i}', x) for i, x in enumerate(states)]
  return Dense(3).apply({'params': variables['params']['classifier']}, states[-1].mean((1, 2)))


def test_a_one_hot_supernet_is_the_network_of_the_architecture():
  variables = variables_of(NET)
  architecture = dict(zip(SPACE, ('max_pool_3x3', 'conv_3x3', 'skip_connect', 'conv_3x3', 'none', 'skip_connect')))
  chosen = {**variables, 'params': put(variables['params'], one_hot(SPACE, architecture))}
  y = jax.jit(lambda v: NET.apply(v, X, False))(chosen)
  np.testing.assert_allclose(y, jax.jit(lambda v: by_hand(architecture, v))(variables), rtol=1e-4, atol=1e-5)
  alone = Derived(NET, architecture)
  np.testing.assert_allclose(y, jax.jit(lambda v: alone.apply(v, X, False))(variables), rtol=1e-4, atol=1e-5)
  own, theirs = jax.eval_shape(lambda: alone.init(KEY, X, False))['params'], tree.leaves(variables['params'])
  assert {path: x.shape for path, x in tree.leaves(own).items()} == {p: theirs[p].shape for p in tree.leaves(own)}
  assert {path.split('/')[1] for path in tree.leaves(own) if path.startswith('layer2/')} == {'conv_3x3'}


def test_rules_search_it_and_every_leaf_trains():
  reparam, variables = chain(at('.*choice', softmax())), variables_of(SHORT)
  slots = reparam.init(KEY, variables['params'])
  assert sorted(slots.phi[0]) == sorted(FEW) == ['layer1/choice', 'layer2/choice', 'layer2_skip0/choice']

  @jax.jit
  def gradients(theta, phi):
    def loss(theta, phi):
      params = reparam.apply(theta, phi, slots.state, KEY)
      y, _ = SHORT.apply({**variables, 'params': params}, X, True, mutable=['batch_stats'])
      return jnp.sum(jnp.sin(y) * jnp.arange(1., 7.).reshape(2, 3))
    return jax.grad(loss, (0, 1))(theta, phi)

  assert [path for path, g in tree.leaves(gradients(slots.theta, slots.phi)).items() if not np.any(g)] == []


@pytest.mark.parametrize('skip', ['none', 'skip_connect'])
def test_the_graph_sees_choices_and_shrinks_to_the_network(skip):
  """The profile of the supernet with hard facts counts what is left when the architecture is cut out of it."""
  variables = variables_of(SHORT)
  fn, params = lambda params, x: SHORT.apply({**variables, 'params': params}, x, False), variables['params']
  found = graph.profile(fn, params, X[:1])
  for row in found.rows:
    layer, name = row.path.split('/')[:2]
    assert row.guards == (((f'{layer}/choice', SHORT.operators.index(name)),) if layer.startswith('layer') else ())
  architecture = {'layer1/choice': 'max_pool_3x3', 'layer2/choice': 'conv_3x3', 'layer2_skip0/choice': skip}
  small, less = graph.shrink(fn, params, np.ones(found.groups.size, bool), X[:1],
                             choose=dict(zip(FEW, encode(FEW, architecture).tolist())))
  np.testing.assert_allclose(small(less, X), Derived(SHORT, architecture).apply(variables, X, False), rtol=1e-4, atol=1e-5)
  facts = {path: Fact(choice=p) for path, p in one_hot(FEW, architecture).items()}
  assert cost.macs(graph.profile(small, less, X[:1]), {}) == cost.macs(found, facts) > 0


@pytest.mark.parametrize(('operator', 'count'),
                         [('conv_5x5', 25 * 4 * 4), ('sep_conv_3x3', 9 * 4 + 4 * 4), ('avg_pool_3x3', 0)])
def test_operators(operator, count):
  """After a 1x1 convolution from 3 to 4 channels; BatchNorm has a scale and a bias."""
  op = MacroOperator(4, operator)
  variables = op.init(KEY, X, False)
  sizes = sum(x.size for x in jax.tree.leaves(variables['params']))
  assert sizes == 3 * 4 + 8 + (count + 8 if count else 0)
  part = lambda name: {kind: part.get(name, {}) for kind, part in variables.items()}
  y = ConvBN(4, 1, activation=jax.nn.relu).apply(part('fit'), X, False)
  want = {'conv_5x5': lambda: ConvBN(4, 5, activation=jax.nn.relu).apply(part('conv'), y, False),
          'sep_conv_3x3': lambda: SeparableConv(4, activation=jax.nn.relu).apply(part('conv'), y, False),
          'avg_pool_3x3': lambda: avg_pool(y, 3, 1, 'SAME', count_padding=False)}[operator]()
  np.testing.assert_allclose(op.apply(variables, X, False), want, rtol=1e-5, atol=1e-6)


def test_sizes_of_images_and_dtype():
  """Three layers halve twice, two not at all, six behind layers 2 and 4."""
  def shapes(layers):
    net = ENASMacro(3, features=2, layers=layers, operators=('max_pool_3x3',), dtype=jnp.bfloat16)
    variables = jax.eval_shape(lambda: net.init(KEY, X, False))
    assert jax.eval_shape(lambda v: net.apply(v, X, False), variables).dtype == jnp.bfloat16
    return sorted(name for name in variables['params'] if name.startswith('reduce'))
  assert shapes(2) == []
  assert len(shapes(3)) == 2 + 3 and len(shapes(6)) == 3 + 5


ERRORS = {
    "ENASMacro: unknown operators ['conv']: known are ('conv_3x3', 'sep_conv_3x3', ": dict(operators=('conv',)),
    'ENASMacro: 0 layers, wanted 1 or more, 3 for two reductions': dict(layers=0)}


@pytest.mark.parametrize('text', ERRORS)
def test_errors(text):
  with pytest.raises(EffjaxError) as error:
    ENASMacro(10, **ERRORS[text]).init(KEY, X, False)
  assert str(error.value).startswith(text)
