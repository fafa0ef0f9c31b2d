"""ENAS' cells: the sizes of the space, the supernet against each network in it, what the graph sees."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import cost, graph, tree
from effjax.errors import EffjaxError
from effjax.layers import BatchNorm, Conv, ConvBN, FactorizedReduce
from effjax.layers.operations import OPERATIONS as LAYERS
from effjax.reparam import Fact, at, chain
from effjax.search import softmax, uniform_path
from effjax.search.derived import Derived
from effjax.search.enas_micro import KINDS, OPERATORS, ENASMicro, MicroCell, choices
from effjax.search.encoding import count, decode, draw, encode, mutate, one_hot, put, space_of

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 8, 8, 3))
SMALL = dict(features=2, nodes=1, operators=('avg_pool_3x3', 'skip_connect'))
NET = ENASMicro(3, cells=1, **SMALL)
SPACE = space_of(NET, X, False)


def variables_of(net, *args):
  """Variables that are all away from where they start."""
  random = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: net.init(KEY, *args, False))
  return jax.tree.map(lambda x: jnp.asarray(random.uniform(.1, .5, x.shape), jnp.float32), shapes)


def function(net, variables):
  return lambda params, x: net.apply({**variables, 'params': params}, x, False)


@pytest.fixture(scope='module')
def variables():
  return variables_of(NET, X)


@pytest.fixture(scope='module')
def forward():
  return jax.jit(lambda variables: NET.apply(variables, X, False))


def test_sizes():
  """Of both cells (5 nodes, 5 operators) 2.6e25; one operator per side, k inputs of node k: the paper's 1.296e11."""
  both = {f'{kind}/{name}': names for kind in KINDS for name, names in choices().items()}
  assert count(both) == np.prod([(5 * (k + 1)) ** 2 for k in range(1, 6)], dtype=object) ** 2 == (720 * 5**5) ** 4
  assert len(both) == 40
  inputs = [len(names) - 1 for name, names in choices().items() if name.endswith('input1')]
  assert (len(OPERATORS) * int(np.prod(inputs))) ** 4 == 129_600_000_000


def by_hand(cell, p, x0, x1, stats_and_params, strides, reduced):
  """The cell of one architecture, from layers alone: p names the choices."""
  def run(module, path, x):
    at_path = lambda part: [part := part.get(name, {}) for name in path.split('/')][-1]
    found = {kind: at_path(part) for kind, part in stats_and_params.items()}
    return module.apply(found, x, False)
  c, relu = cell.features, jax.nn.relu
  fit = lambda path, x: run(ConvBN(c, 1, activation=None), path, relu(x))
  states = [run(FactorizedReduce(c), 'fit0', x0) if reduced else fit('fit0', x0), fit('fit1', x1)]
  used = set()
  for j in range(2, 2 + cell.nodes):
    y = 0.
    for side in (1, 2):
      i, name = int(p[f'node{j}_input{side}'][-1]), p[f'node{j}_operator{side}']
      used.add(i)
      layer = LAYERS[name](c, strides if i < 2 else 1)
      y = y + run(layer, f'node{j}_side{side}_state{i}/{name}', states[i])
    states.append(y)
  loose = [j for j in range(2, 2 + cell.nodes) if j not in used]
  # One convolution of the concatenated states, as the paper has it.
  kernels = [stats_and_params['params'][f'output{j}']['conv']['kernel'] for j in loose]
  y = Conv(c, 1).apply({'params': {'conv': {'kernel': jnp.concatenate(kernels, 2)}}},
                       relu(jnp.concatenate([states[j] for j in loose], -1)))
  return run(BatchNorm(), 'output_bn', y), loose


READS = {'chain': ('state1', 'state0', 'state2', 'state1'), 'parallel': ('state0', 'state1', 'state1', 'state0')}


@pytest.mark.parametrize(('strides', 'reduced', 'reads', 'ends'), [(1, False, 'chain', [3]), (2, True, 'parallel', [2, 3])])
def test_a_one_hot_cell_is_the_cell_of_the_architecture(strides, reduced, reads, ends):
  cell = MicroCell(2, ('sep_conv_3x3', 'avg_pool_3x3', 'skip_connect'), 2, strides, reduced)
  space, x1 = choices(2, cell.operators), jax.random.normal(KEY, (2, 4, 4, 3))
  x0 = jax.random.normal(KEY, (2, 8, 8, 2) if reduced else (2, 4, 4, 2))
  of = zip(READS[reads], ('sep_conv_3x3', 'skip_connect', 'avg_pool_3x3', 'sep_conv_3x3'))
  architecture = dict(zip(space, [name for pair in of for name in pair]))
  p = one_hot(space, architecture)
  random, shapes = np.random.default_rng(0), jax.eval_shape(lambda: cell.init(KEY, x0, x1, p, False))
  variables = jax.tree.map(lambda x: jnp.asarray(random.uniform(.1, .5, x.shape), jnp.float32), shapes)
  want, loose = jax.jit(lambda v: by_hand(cell, architecture, x0, x1, v, strides, reduced))(variables)
  assert loose == ends
  y = jax.jit(lambda v, p: cell.apply(v, x0, x1, p, False))(variables, p)
  np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


def test_the_supernet_is_each_network_which_has_its_own_parameters_alone(variables, forward):
  architecture = dict(zip(SPACE, ('state1', 'skip_connect', 'state0', 'skip_connect')))
  chosen = {**variables, 'params': put(variables['params'], one_hot(SPACE, architecture))}
  alone = Derived(NET, architecture)
  np.testing.assert_allclose(forward(chosen), jax.jit(lambda v: alone.apply(v, X, False))(variables), rtol=1e-4, atol=1e-5)
  own = tree.leaves(jax.eval_shape(lambda: alone.init(KEY, X, False))['params'])
  theirs = tree.leaves(variables['params'])
  assert {path: x.shape for path, x in own.items()} == {path: theirs[path].shape for path in own}
  loss = lambda params: jnp.sum(jnp.sin(NET.apply({**chosen, 'params': params}, X, False)))
  gradient = tree.leaves(jax.jit(jax.grad(loss))(chosen['params']))
  others = [path for path in theirs if path not in own and not path.endswith('choice')]
  assert others and not any(np.any(gradient[path]) for path in others)


def test_rules_search_it_and_every_leaf_trains(variables):
  reparam = chain(at('.*choice', softmax()))
  slots = reparam.init(KEY, variables['params'])
  phi = tree.map_at(lambda path, x: x + .1 * jnp.arange(len(x), dtype=x.dtype), slots.phi, tree.leaves(slots.phi))
  assert sorted(slots.phi[0]) == sorted(SPACE) and len(SPACE) == 4

  @jax.jit
  def gradients(theta, phi):
    def loss(theta, phi):
      params = reparam.apply(theta, phi, slots.state, KEY)
      y, _ = NET.apply({**variables, 'params': params}, X, True, mutable=['batch_stats'])
      return jnp.sum(jnp.sin(y) * jnp.arange(1., 7.).reshape(2, 3))
    return jax.grad(loss, (0, 1))(theta, phi)

  still = [path for path, g in tree.leaves(gradients(slots.theta, phi)).items() if not np.any(g)]
  assert still == []
  assert sum('logits' in path for path in tree.leaves(phi)) == 4


def test_one_path_is_the_sum_where_a_rule_draws_one_hots(variables, forward):
  rule = chain(at('.*choice', uniform_path()))
  slots = rule.init(KEY, variables['params'])
  params = rule.apply(*slots, jax.random.key(1))
  y = jax.jit(lambda v: ENASMicro(3, cells=1, paths=1, **SMALL).apply(v, X, False))({**variables, 'params': params})
  np.testing.assert_allclose(y, forward({**variables, 'params': params}), rtol=1e-4, atol=1e-5)


def test_the_loose_ends_of_open_choices():
  """The weight of state j is the probability that nothing reads it: the expectation over all architectures."""
  cell, x, space = MicroCell(2, ('skip_connect',), 3), X, choices(3, ('skip_connect',))
  random = np.random.default_rng(1)
  p = {name: jnp.asarray(random.dirichlet(np.ones(len(names))), jnp.float32) for name, names in space.items()}
  variables = cell.init(KEY, x, x, p, False)
  # States that are the same whatever is chosen: both inputs are, and an identity adds what it reads twice.
  params = variables['params']
  params['fit0'] = params['fit1']
  stats = variables['batch_stats']
  state = jax.nn.relu(ConvBN(2, 1, activation=None).apply({'params': params['fit0'], 'batch_stats': stats['fit0']},
                                                          jax.nn.relu(x), False))
  expected = np.zeros(3)
  q = {name: np.asarray(value, np.float64) for name, value in p.items()}
  for j in (2, 3, 4):
    later = [q[f'node{k}_input{side}'] for k in range(j + 1, 5) for side in (1, 2)]
    expected[j - 2] = np.prod([1 - v[j] for v in later])
  for j in (2, 3, 4):  # only the convolution of state j, the identity; the last state is always an end
    kernels = {f'output{k}': {'conv': {'kernel': float(k == j) * jnp.eye(2)[None, None]}} for k in (2, 3, 4)}
    y = cell.apply({'params': {**params, **kernels}, 'batch_stats': stats}, x, x, p, False)
    # Node k reads 2^n times the input with n the length of its way; take the expectation of that, too.
    ways = [1., 1.]
    for k in range(2, j + 1):
      ways.append(sum(q[f'node{k}_input{side}'] @ np.array(ways) for side in (1, 2)))
    np.testing.assert_allclose(y, expected[j - 2] * ways[j] * np.asarray(state) / np.sqrt(1.001), rtol=1e-4, atol=1e-6)


def test_the_graph_sees_which_choices_guard_an_operator(variables):
  found = graph.profile(function(NET, variables), variables['params'], X[:1])
  guarded = [row for row in found.rows if '_side' in row.path]
  for row in guarded:
    name = row.path.split('/')[1]
    side, state = name[len('node2_side')], int(name[-1])
    assert row.guards == ((f'reduce/node2_input{side}/choice', state), (f'reduce/node2_operator{side}/choice', 1))
  assert len(guarded) == 2 * 2 * 2 and not any(row.guards for row in found.rows if '_side' not in row.path)


@pytest.mark.parametrize('read', [('state2', 'state0'), ('state1', 'state0')])
def test_shrinking_leaves_the_loose_ends(read):
  """And what the docstring says that a cost counts too: the convolution of state 2 where node 3 reads it."""
  net = ENASMicro(3, features=2, cells=1, nodes=2, operators=('avg_pool_3x3', 'max_pool_3x3'))
  variables, space = variables_of(net, X), space_of(net, X, False)
  fn, params = function(net, variables), variables['params']
  architecture = {**draw(KEY, space), 'reduce/node3_input1/choice': read[0], 'reduce/node3_input2/choice': read[1]}
  found = graph.profile(fn, params, X[:1])
  small, less = graph.shrink(fn, params, np.ones(found.groups.size, bool), X[:1],
                             choose=dict(zip(space, encode(space, architecture).tolist())))
  alone = Derived(net, architecture)
  np.testing.assert_allclose(small(less, X), alone.apply(variables, X, False), rtol=1e-4, atol=1e-5)
  own = jax.eval_shape(lambda: alone.init(KEY, X, False))['params']
  assert sorted(p for p, x in tree.leaves(less).items() if x is not None) == sorted(tree.leaves(own))
  facts = {path: Fact(choice=p) for path, p in one_hot(space, architecture).items()}
  unseen = 4 * 4 * 4 * 4 if 'state2' in read else 0  # 4 x 4 channels at 4 x 4 places
  assert cost.macs(found, facts) == cost.macs(graph.profile(small, less, X[:1]), {}) + unseen > unseen


def test_what_searches_do_with_the_space():
  architecture = draw(KEY, SPACE)
  assert decode(SPACE, encode(SPACE, architecture)) == architecture
  other = mutate(KEY, SPACE, architecture)
  assert sum(other[path] != architecture[path] for path in SPACE) == 1


def test_kinds_share_their_choices_and_reductions_double_the_channels():
  net = ENASMicro(4, cells=4, dtype=jnp.bfloat16, **SMALL)  # cells 2 and 3 reduce, one after the other
  variables = jax.eval_shape(lambda: net.init(KEY, X, False))
  assert sorted(variables['params']) == ['cell1', 'cell2', 'cell3', 'cell4', 'classifier', 'normal', 'reduce', 'stem']
  kernel = lambda cell, name: variables['params'][cell][name]['conv']['kernel'].shape
  assert [kernel(f'cell{i}', 'fit1')[2:] for i in (1, 2, 3, 4)] == [(6, 2), (2, 4), (4, 8), (8, 8)]
  assert 'even' in variables['params']['cell3']['fit0'] and 'even' in variables['params']['cell4']['fit0']
  assert jax.eval_shape(lambda v: net.apply(v, X, False), variables).dtype == jnp.bfloat16
  assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  space = space_of(net, X, False)
  assert count(space) == (2 * 2) ** 4 and list(space)[0] == 'normal/node2_input1/choice'


ERRORS = {
    "ENASMicro: unknown operators ['conv']: known are ('none', 'skip_connect', ": dict(operators=('conv',)),
    'ENASMicro: 0 cells of 5 nodes, wanted 1 or more of each, 3 cells for both kinds': dict(cells=0),
    'ENASMicro: 8 cells of 0 nodes, wanted 1 or more of each, 3 cells for both kinds': dict(nodes=0)}


@pytest.mark.parametrize('text', ERRORS)
def test_errors(text):
  with pytest.raises(EffjaxError) as error:
    ENASMicro(10, **ERRORS[text]).init(KEY, X, False)
  assert str(error.value).startswith(text)
