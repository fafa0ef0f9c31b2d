"""NAS-Bench-201: counts of its networks, the supernet against each of them, the benchmark's names and numbers."""
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import cost, graph, tree
from effjax.errors import EffjaxError
from effjax.graph.profile import counts
from effjax.reparam import Fact, at, chain
from effjax.search import softmax
from effjax.search.derived import Derived
from effjax.search.encoding import count, decode, draw, encode, one_hot, put, space_of
from effjax.search.nas_bench_201 import (
    EDGES,
    OPERATORS,
    SPACE,
    Cell201,
    NASBench201,
    Reduction,
    ReLUConvBN,
    parse,
    row_of,
    to_text,
)

KEY = jax.random.key(0)
TABLE = pathlib.Path(__file__).parents[2] / '../shared/data/nas/nasbench201.npz'
X = jax.random.normal(KEY, (2, 16, 16, 3))
TINY = dict(features=4, cells=1)
TEXT = '|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|'
ARCHITECTURES = [parse(TEXT), draw(KEY, SPACE), draw(jax.random.key(1), SPACE),
                 *(dict.fromkeys(SPACE, name) for name in OPERATORS)]


def operators(architecture):
  return [list(architecture.values()).count(name) for name in ('nor_conv_3x3', 'nor_conv_1x1', 'avg_pool_3x3')]


def function(net, variables):
  statistics = jax.tree.map(lambda x: jnp.zeros(x.shape), variables['batch_stats'])
  return lambda params, x: net.apply({'params': params, 'batch_stats': statistics}, x, False)


def variables_of(net):
  """Variables that are all away from where they start."""
  random = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: net.init(KEY, X, False))
  return jax.tree.map(lambda x: jnp.asarray(random.uniform(.1, .5, x.shape), jnp.float32), shapes)


@pytest.fixture(scope='module')
def supernet():
  net = NASBench201(10, **TINY)
  return net, variables_of(net)


@pytest.fixture(scope='module')
def forward(supernet):
  return jax.jit(lambda variables: supernet[0].apply(variables, X, False))


@pytest.mark.parametrize('architecture', ARCHITECTURES, ids=to_text)
def test_parameters_are_those_of_the_closed_form(architecture):
  net = Derived(NASBench201(10), architecture)
  params = jax.eval_shape(lambda: net.init(KEY, jnp.ones((1, 32, 32, 3)), False))['params']
  n3x3, n1x1, _ = operators(architecture)
  assert sum(x.size for x in jax.tree.leaves(params)) == 73_306 + 243_040 * n3x3 + 28_000 * n1x1


def test_multiply_accumulates():
  """Of convolutions and the dense layer. The benchmark's tool counts a bias of the latter too: 7.783050 M.

  Others add three operations for each entry that an operator's convolution writes (ReLU, and BatchNorm's product and
  sum), and nine for each that a pool writes: 35.819520, 4.362240 and 1.290240 M per operator.
  """
  x, entries = jnp.ones((1, 32, 32, 3)), 5 * (16 * 32**2 + 32 * 16**2 + 64 * 8**2)
  net = Derived(NASBench201(10), ARCHITECTURES[0])
  variables = jax.eval_shape(lambda: net.init(KEY, x, False))
  found = graph.profile(function(net, variables), variables['params'], x)
  n3x3, n1x1, pools = operators(ARCHITECTURES[0])
  assert sum(counts(row).macs for row in found.rows) == 7_783_040 + 35_389_440 * n3x3 + 3_932_160 * n1x1
  assert (35_389_440 + 3 * entries, 3_932_160 + 3 * entries, 9 * entries) == (35_819_520, 4_362_240, 1_290_240)
  written = [counts(row).written for row in found.ops if row.kind == 'pool' and 'edge' in row.scope]
  assert sum(written) == pools * entries


@pytest.mark.parametrize('architecture', ARCHITECTURES, ids=to_text)
def test_a_one_hot_supernet_is_the_network_of_the_architecture(supernet, forward, architecture):
  variables = supernet[1]
  chosen = {**variables, 'params': put(variables['params'], one_hot(SPACE, architecture))}
  alone = Derived(NASBench201(10, **TINY), architecture)
  np.testing.assert_allclose(forward(chosen), alone.apply(variables, X, False), rtol=1e-5, atol=1e-5)
  own = tree.leaves(jax.eval_shape(lambda: alone.init(KEY, X, False)))
  theirs = tree.leaves(variables)
  assert {path: x.shape for path, x in own.items()} == {path: theirs[path].shape for path in own}


def test_a_cell_by_hand(supernet):
  """With equal weights: every edge is the mean of 0, x, two convolutions and the pool."""
  variables = {kind: part['stage1_cell1'] for kind, part in supernet[1].items()}
  x = jax.random.normal(KEY, (2, 6, 6, 4))

  def edge(k, x):
    conv = lambda name, size: ReLUConvBN(4, size, activation=None, epsilon=1e-5).apply(
        {kind: part[f'edge{k}'][name] for kind, part in variables.items()}, x, False)
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    inside = np.pad(np.ones((6, 6)), 1)
    window = lambda a, i, j: a[..., i:i + 6, j:j + 6] if a.ndim == 2 else a[:, i:i + 6, j:j + 6]
    pool = sum(window(padded, i, j) for i in range(3) for j in range(3))
    pool = pool / sum(window(inside, i, j) for i in range(3) for j in range(3))[None, :, :, None]
    return (x + conv('nor_conv_1x1', 1) + conv('nor_conv_3x3', 3) + pool) / 5

  nodes = [x]
  for j in (1, 2, 3):
    nodes.append(sum(edge(k, nodes[i]) for k, (i, to) in enumerate(EDGES) if to == j))
  cell = Cell201(4, OPERATORS, epsilon=1e-5)
  np.testing.assert_allclose(cell.apply(variables, x, (jnp.full(5, .2),) * 6, False), nodes[3], rtol=1e-4, atol=1e-5)


def test_the_reduction_by_hand():
  """Zero convolutions leave the shortcut: the mean of 2x2 entries times a matrix, not rectified."""
  block, x = Reduction(3), jax.random.normal(KEY, (1, 4, 4, 2))
  variables = block.init(KEY, x, False)
  variables['params']['conv2']['conv']['kernel'] *= 0
  pooled = np.asarray(x).reshape(1, 2, 2, 2, 2, 2).mean((2, 4))
  y = block.apply(variables, x, False)
  np.testing.assert_allclose(y, pooled @ variables['params']['shortcut']['conv']['kernel'][0, 0], rtol=1e-4, atol=1e-5)
  assert float(y.min()) < 0


def test_six_leaves_search_with_rules_and_every_leaf_trains():
  """Not compiled: the cells repeat a few small programs."""
  net = NASBench201(10, operators=('none', 'nor_conv_1x1', 'avg_pool_3x3'), **TINY)
  variables = variables_of(net)
  reparam = chain(at('edges/.*/choice', softmax()))
  slots = reparam.init(KEY, variables['params'])
  assert list(slots.phi[0]) == [*SPACE] == [*space_of(net, X, False)]

  def loss(theta, phi):
    params = reparam.apply(theta, phi, slots.state, KEY)
    y, _ = net.apply({**variables, 'params': params}, X, True, mutable=['batch_stats'])
    return jnp.sum(jnp.sin(y) * jnp.arange(1., 21.).reshape(2, 10))

  theta, phi = jax.grad(loss, (0, 1))(slots.theta, slots.phi)
  still = [path for path, g in tree.leaves((theta, phi)).items() if not np.any(g)]
  assert still == []


def test_guards_costs_and_shrinking_see_the_shared_choices():
  """The profile of the supernet with hard facts counts what is left when the architecture is cut out of it."""
  names = ('none', 'skip_connect', 'nor_conv_1x1')
  space, net = dict.fromkeys(SPACE, names), NASBench201(10, operators=names, **TINY)
  variables = variables_of(net)
  params = variables['params']
  architecture = dict(zip(SPACE, [*names, *names[::-1]]))
  fn = function(net, variables)
  found = graph.profile(fn, params, X[:1])
  for row in found.rows:
    edge = row.path.split('/')[1]
    assert row.guards == (((f'edges/{edge}/choice', 2),) if edge.startswith('edge') else ())
  facts = {path: Fact(choice=p) for path, p in one_hot(space, architecture).items()}
  keep = np.ones(found.groups.size, bool)
  small, less = graph.shrink(fn, params, keep, X[:1], choose=dict(zip(space, encode(space, architecture).tolist())))
  again = graph.profile(small, less, X[:1])
  assert cost.macs(found, facts) == cost.macs(again, {}) > 0
  assert cost.params(found, facts) == sum(x.size for x in jax.tree.leaves(less))
  alone = Derived(NASBench201(10, **TINY), architecture)
  np.testing.assert_allclose(small(less, X[:1]), function(alone, variables)(params, X[:1]), rtol=1e-5, atol=1e-5)


def test_fewer_operators_and_dtype():
  net = NASBench201(10, operators=('skip_connect', 'nor_conv_1x1'), dtype=jnp.bfloat16, **TINY)
  variables = jax.eval_shape(lambda: net.init(KEY, X, False))
  assert variables['params']['edges']['edge0']['choice'].shape == (2,)
  assert jax.eval_shape(lambda v: net.apply(v, X, False), variables).dtype == jnp.bfloat16
  assert count(space_of(net, X, False)) == 2**6


def test_the_count():
  assert count(SPACE) == 15_625


def test_texts():
  assert [encode(SPACE, parse(TEXT)).tolist(), to_text(parse(TEXT))] == [[3, 2, 0, 1, 4, 3], TEXT]
  for seed in range(50):
    architecture = draw(jax.random.key(seed), SPACE)
    assert parse(to_text(architecture)) == architecture


@pytest.mark.skipif(not TABLE.exists(), reason='no table of the benchmark beside the project')
def test_the_table_has_each_architecture_once_under_our_names():
  with np.load(TABLE) as table:
    rows, names, accuracy = table['arch'], table['ops'], table['accuracy']
  assert tuple(names) == OPERATORS
  assert len(np.unique(rows, axis=0)) == len(rows) == count(SPACE)
  assert row_of(rows, dict.fromkeys(SPACE, 'skip_connect')) == 1835  # where DARTS ends
  for i in (0, 1835, 15_624):
    assert row_of(rows, decode(SPACE, rows[i])) == i
  assert accuracy[row_of(rows, dict.fromkeys(SPACE, 'none'))].max() < 11  # nothing reaches the classifier: chance


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='how XLA fuses on CPUs')
def test_a_stage_of_cells_is_not_computed_again_for_each_cell():
  def flops(cells):
    net, x = NASBench201(10, 2, cells), jnp.ones((2, 8, 8, 3))
    variables = jax.eval_shape(lambda: net.init(KEY, x, False))
    loss = lambda params, stats: net.apply({'params': params, 'batch_stats': stats}, x, True,
                                           mutable=['batch_stats'])[0].sum()
    of_weights = lambda *args: {**jax.grad(loss)(*args), 'edges': None}
    compiled = jax.jit(of_weights).lower(variables['params'], variables['batch_stats']).compile()
    return compiled.cost_analysis()['flops']
  assert flops(2) < 2.5 * flops(1)  # 4.1 times without `materialize`


def at_once(**options):
  return lambda: NASBench201(10, **TINY, **options).init(KEY, X, False)


ERRORS = {
    "NASBench201: unknown operators ['conv']: known are ('none', 'skip_connect', ": at_once(operators=('none', 'conv')),
    'NASBench201: images of 6 x 8, wanted multiples of 4: crop or pad them':
        lambda: NASBench201(10).init(KEY, jnp.ones((1, 6, 8, 3)), False),
    "NASBench201: '|none~0|' is no architecture: wanted '|op~0|+|op~0|op~1|+|op~0|op~1|op~2|'": lambda: parse('|none~0|'),
    "architecture: choice 'edges/edge3/choice' has no operator 'skip': nearest are ['skip_connect', ":
        lambda: parse(TEXT.replace('skip_connect', 'skip')),
    f'NASBench201: {TEXT} is not among the 2 rows of the table: are its operators numbered as (':
        lambda: row_of(np.zeros((2, 6), np.int8), parse(TEXT))}


@pytest.mark.parametrize('text', ERRORS)
def test_errors(text):
  with pytest.raises(EffjaxError) as error:
    ERRORS[text]()
  assert str(error.value).startswith(text)
