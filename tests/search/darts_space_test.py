"""DARTS' supernet: counts, its cell against a derived one, BatchNorm without parameters, PC-DARTS' partial channels."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import graph, tree
from effjax.errors import EffjaxError
from effjax.layers import Cell, ConvBN
from effjax.search.darts_space import OPERATORS, DARTSSpace, count_cells, edge_names, unstacked
from effjax.search.encoding import count, space_of
from effjax.search.mixed_cell import EDGES, CellWeights, MixedCell, PoolBN

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 16, 16, 3))
FEW = ('none', 'max_pool_3x3', 'skip_connect', 'dil_conv_3x3')


def variables_of(net, *args):
  """Variables that are all away from where they start."""
  random = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: net.init(KEY, *args, False))
  return jax.tree.map(lambda x: jnp.asarray(random.uniform(.1, .5, x.shape), jnp.float32), shapes)


def operator_parameters(f, strides):
  """Of the eight operators on f channels: two separable convolutions twice, two once, a factorized reduction."""
  depthwise = lambda k: k * k * f + f * f
  return 2 * (depthwise(3) + depthwise(5)) + depthwise(3) + depthwise(5) + (f * f if strides == 2 else 0)


def parameters(f, cells, partial=1):
  total, before, last = 3 * 9 * 3 * f + 2 * 3 * f, 3 * f, 3 * f
  for i in range(cells):
    reduce = i in (cells // 3, 2 * cells // 3)
    f *= 2 if reduce else 1
    halved = 8 if reduce else 0
    total += f * (before + last) + halved * operator_parameters(f // partial, 2)
    total += (14 - halved) * operator_parameters(f // partial, 1)
    before, last = last, 4 * f
  return total + 10 * last + 10


def own(params):
  return sum(x.size for path, x in tree.leaves(params).items() if not path.endswith(('choice', 'edges')))


@pytest.mark.parametrize(('cells', 'partial'), [(1, 1), (3, 2)])
def test_parameters(cells, partial):
  net = DARTSSpace(10, features=4, cells=cells, partial=partial)
  assert own(jax.eval_shape(lambda: net.init(KEY, X, False))['params']) == parameters(4, cells, partial)
  assert parameters(16, 8) == 1_930_618  # as the authors' code prints it


@pytest.mark.slow
def test_parameters_of_the_network_that_the_authors_search():
  params = jax.eval_shape(lambda: DARTSSpace().init(KEY, jnp.ones((1, 32, 32, 3)), False))['params']
  assert own(params) == 1_930_618


def test_edges_are_named_and_counted():
  names, space = edge_names(), space_of(DARTSSpace(10, features=4, cells=3, operators=FEW), X, False)
  assert list(names) == list(space) and set(space.values()) == {FEW}
  assert [names[f'normal/edge{k}/choice'] for k in range(14)] == [
      (0, 2), (1, 2), (0, 3), (1, 3), (2, 3), (0, 4), (1, 4), (2, 4), (3, 4), (0, 5), (1, 5), (2, 5), (3, 5), (4, 5)]
  assert count(space) == 4 ** 28


def test_derived_cells_are_counted():
  """Two of the inputs of each node, an operator for each: the closed form, and all of them listed for two nodes."""
  assert count_cells() == 1_037_664_180 and f'{count_cells()**2:.5e}' == '1.07675e+18'
  node = lambda inputs, operators: [(pair, ops) for pair in itertools.combinations(range(inputs), 2)
                                    for ops in itertools.product(range(operators), repeat=2)]
  assert count_cells(2, 3) == len(list(itertools.product(node(2, 3), node(3, 3))))


@pytest.mark.parametrize('strides', [1, 2])
def test_a_one_hot_cell_is_the_cell_of_the_genotype(strides):
  """Two edges of each node have an operator, all others none."""
  names = ('none', 'skip_connect', 'sep_conv_3x3', 'dil_conv_5x5')
  edges = (('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_5x5', 0), ('sep_conv_3x3', 2),
           ('skip_connect', 2), ('skip_connect', 3), ('dil_conv_5x5', 1), ('sep_conv_3x3', 4))
  number = {edge: k for k, edge in enumerate(EDGES)}
  x0, x1 = X, jax.random.normal(jax.random.key(1), (2, 8, 8, 5))
  p = [jnp.eye(4)[0]] * 14
  for k, (name, i) in enumerate(edges):
    p[number[i, 2 + k // 2]] = jnp.eye(4)[names.index(name)]
  mixed = MixedCell(4, names, strides, True)
  variables = jax.tree.map(lambda x: x, variables_of(mixed, x0, x1, p, None))
  own = lambda part: {**part, **{f'edge{k}': part[f'edge{number[i, 2 + k // 2]}'][name]
                                 for k, (name, i) in enumerate(edges) if name in part[f'edge{number[i, 2 + k // 2]}']}}
  cell = Cell(edges, (2, 3, 4, 5), 4, strides, 'reduce')
  alone = cell.apply({kind: own(part) for kind, part in variables.items()}, x0, x1, False)
  np.testing.assert_allclose(mixed.apply(variables, x0, x1, p, None, False), alone, rtol=1e-4, atol=1e-5)


def test_batch_norm_in_cells_has_no_parameters_unless_asked_for():
  """As with scales of 1 and biases of 0, in training too; the stem's has both."""
  tiny = dict(features=4, cells=1, operators=FEW)
  plain, affine = DARTSSpace(10, **tiny), DARTSSpace(10, affine=True, **tiny)
  variables = variables_of(affine, X)
  here = lambda path: path.startswith('cell') and path.split('/')[-1] in ('scale', 'bias')
  leaves = tree.leaves(variables['params'])
  fixed = {path: jnp.ones_like(x) if path.endswith('scale') else jnp.zeros_like(x) for path, x in leaves.items() if here(path)}
  variables['params'] = tree.map_at(lambda path, _: fixed[path], variables['params'], fixed)
  kept = jax.eval_shape(lambda: plain.init(KEY, X, False))
  assert set(tree.leaves(kept['params'])) == set(leaves) - set(fixed)
  less = {**variables, 'params': tree.map_at(lambda path, _: leaves[path], kept['params'], set(leaves))}
  for train in (False, True):
    run = lambda net, v, train=train: net.apply(v, X, train, mutable=['batch_stats'])
    jax.tree.map(np.testing.assert_array_equal, run(plain, less), run(affine, variables))
  assert fixed and 'scale' in kept['params']['stem1']['bn']


@pytest.mark.parametrize(('partial', 'operators'), [
    (1, FEW), (2, ('none', 'dil_conv_3x3')), pytest.param(1, OPERATORS, marks=pytest.mark.slow)])
def test_forward_and_backward_reach_every_leaf(partial, operators):
  net = DARTSSpace(10, features=4, cells=1, partial=partial, operators=operators)
  variables = variables_of(net, X)

  def loss(params):
    y, _ = net.apply({**variables, 'params': params}, X, True, mutable=['batch_stats'])
    return jnp.sum(jnp.sin(y) * jnp.arange(1., 21.).reshape(2, 10))

  still = [path for path, g in tree.leaves(jax.grad(loss)(variables['params'])).items() if not np.any(g)]
  assert still == [] and ('reduce/node5_edges' in tree.leaves(variables['params'])) == (partial > 1)


@pytest.mark.parametrize('strides', [1, 2])
def test_partial_channels_by_hand(strides):
  """Half of the channels are multiplied by p, the others pass, both take turns; edges are weighed by q."""
  random = np.random.default_rng(0)
  cell, x = MixedCell(4, ('max_pool_3x3',), strides, partial=2), X[..., :2]
  p = [jnp.asarray(random.uniform(size=1), jnp.float32) for _ in EDGES]
  q = [jnp.asarray(random.uniform(size=j), jnp.float32) for j in range(2, 6)]
  variables = variables_of(cell, x, x, p, q)
  inner = lambda module, name, *args: module.apply({kind: part[name] for kind, part in variables.items()}, *args, False)
  states = [np.asarray(inner(ConvBN(4, 1, activation=None), name, jax.nn.relu(x))) for name in ('fit0', 'fit1')]

  def edge(k, i):
    s = strides if i < 2 else 1
    pool = PoolBN('max_pool_3x3', s).apply(
        {kind: part[f'edge{k}']['max_pool_3x3'] for kind, part in variables.items()}, jnp.asarray(states[i][..., :2]), False)
    past = states[i][..., 2:]
    if s == 2:
      past = past.reshape(2, 8, 2, 8, 2, 2).max((2, 4))
    y = np.empty((*past.shape[:3], 4))
    y[..., 0::2], y[..., 1::2] = np.asarray(pool) * float(p[k][0]), past
    return y

  for j in range(2, 6):
    states += [sum(float(q[j - 2][i]) * edge(k, i) for k, (i, to) in enumerate(EDGES) if to == j)]
  np.testing.assert_allclose(cell.apply(variables, x, x, p, q, False), np.concatenate(states[2:], -1), rtol=1e-4, atol=1e-5)


def test_guards_are_the_operator_and_with_partial_channels_the_edge():
  net = DARTSSpace(10, features=4, cells=1, operators=FEW, partial=2)
  variables = variables_of(net, X[:1])
  fn = lambda params, x: net.apply({**variables, 'params': params}, x, False)
  for row in graph.profile(fn, variables['params'], X[:1]).rows:
    parts = row.path.split('/')
    guards = set(row.guards)
    if len(parts) > 2 and parts[1].startswith('edge'):
      source, state = EDGES[int(parts[1][4:])]
      assert guards == {(f'reduce/{parts[1]}/choice', FEW.index(parts[2])), (f'reduce/node{state}_edges', source)}
    else:
      assert guards == set()


@pytest.mark.parametrize(('strides', 'names', 'how'), [
    (1, ('none', 'dil_conv_3x3'), {}), (2, ('none', 'skip_connect'), dict(partial=2, affine=False)),
    pytest.param(1, ('skip_connect', 'max_pool_3x3'), dict(paths=1, dtype=jnp.bfloat16), marks=pytest.mark.slow)])
def test_a_loop_over_edges_is_the_cell(strides, names, how):
  """Outputs, gradients of everything and new statistics, on the same parameters unstacked."""
  random = np.random.default_rng(0)
  p = [jnp.asarray(random.uniform(.1, 1., len(names)), jnp.float32) for _ in EDGES]
  q = [jnp.asarray(random.uniform(size=j), jnp.float32) for j in range(2, 6)] if 'partial' in how else None
  loop, cell = (MixedCell(4, names, strides, scan=scan, **how) for scan in (True, False))
  variables = variables_of(loop, X, X, p, q)

  def results(net, variables):
    def loss(params, x, p, q):
      y, new = net.apply({**variables, 'params': params}, x, x, p, q, True, mutable=['batch_stats'])
      return jnp.sum(jnp.sin(y.astype(float) * jnp.arange(1., 17.).reshape(1, 1, 1, 16))), (y, new)
    return jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(variables['params'], X, p, q)

  (_, (y, new)), (gradient, *others) = results(loop, variables)
  found = (y, unstacked(new), unstacked(gradient), others)
  (_, (y, new)), (gradient, *others) = results(cell, unstacked(variables))
  tolerance = 5e-2 if 'dtype' in how else 1e-3

  def same(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape
    np.testing.assert_allclose(np.float64(a), np.float64(b), rtol=0, atol=tolerance * (1e-3 + np.abs(np.float64(b)).max()))

  jax.tree.map(same, found, (y, new, gradient, others))
  assert np.any(y)


def test_the_supernet_of_loops_has_the_same_leaves():
  nets = [DARTSSpace(10, features=4, cells=3, operators=FEW, scan=scan) for scan in (True, False)]
  loops, plain = (jax.eval_shape(lambda net=net: net.init(KEY, X, False)) for net in nets)
  some = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), loops)
  shapes = lambda variables: {path: (x.shape, x.dtype) for path, x in tree.leaves(variables).items()}
  assert shapes(unstacked(some)) == shapes(plain)
  assert space_of(nets[0], X, False) == space_of(nets[1], X, False)
  inner = unstacked({'inner': {'a': np.arange(6)}, 'b': 7})
  assert inner == {'b': 7, **{f'edge{k}': {'a': n} for n, k in enumerate((4, 7, 8, 11, 12, 13))}}


def test_what_is_not_stacked_is_an_error():
  with pytest.raises(EffjaxError, match=r"unstacked: none of 1 leaves is under \('edges', 'outer', 'inner'\): give the var"):
    unstacked({'cell1': {'edge0': 1.}})


def test_weights_start_equal():
  p, q = CellWeights(OPERATORS, True).init_with_output(KEY)[0]
  assert [x.tolist() for x in q] == [[np.float32(1 / j)] * j for j in (2, 3, 4, 5)]
  assert len(p) == 14 and all(x.tolist() == [1 / 8] * 8 for x in p)
  assert CellWeights(OPERATORS).init_with_output(KEY)[0][1] is None


def test_dtype():
  net = DARTSSpace(10, features=4, cells=1, operators=FEW, partial=2, dtype=jnp.bfloat16)
  variables = jax.eval_shape(lambda: net.init(KEY, X, False))
  assert jax.eval_shape(lambda v: net.apply(v, X, False), variables).dtype == jnp.bfloat16
  assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


ERRORS = {
    "DARTSSpace: unknown operators ['conv']: known are ('none', 'max_pool_3x3', ": dict(operators=('none', 'conv')),
    'DARTSSpace: 0 cells, wanted 1 or more, 3 for both kinds': dict(cells=0),
    'DARTSSpace: partial=3 does not divide features=4: choose another': dict(partial=3),
    'DARTSSpace: partial=0 does not divide features=4: choose another': dict(partial=0)}


@pytest.mark.parametrize('text', ERRORS)
def test_errors(text):
  with pytest.raises(EffjaxError) as error:
    DARTSSpace(10, **{'features': 4, 'cells': 1} | ERRORS[text]).init(KEY, X, False)
  assert str(error.value).startswith(text)
