"""The network of a genotype: the function of its hierarchy, the identity of a chain, its gradients."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import tree
from effjax.errors import EffjaxError
from effjax.layers import ConvBN, SeparableConv, avg_pool, max_pool
from effjax.search.hierarchical import PRIMITIVES, flatten, identity_chain, motif_space
from effjax.search.hierarchical_cell import HierarchicalCell

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 6, 6, 3))


def variables_of(cell):
  random = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: cell.init(KEY, X, False))
  return jax.tree.map(lambda x: jnp.asarray(random.uniform(.1, .5, x.shape), jnp.float32), shapes)


def test_the_function_of_a_hierarchy():
  """A motif m(x) = merge(max_pool(x), conv(conv(x))), twice with its own weights: m'(m(x))."""
  space = motif_space(('conv_1x1', 'max_pool_3x3'), (1, 1), (3, 3))
  edges = {'level2/motif1/edge0_1': 'conv_1x1', 'level2/motif1/edge1_2': 'conv_1x1',
           'level2/motif1/edge0_2': 'max_pool_3x3', 'level3/motif1/edge0_1': 'motif1',
           'level3/motif1/edge1_2': 'motif1'}
  cell = HierarchicalCell(flatten(space, {**dict.fromkeys(space, 'none'), **edges}))
  variables = variables_of(cell)
  assert sorted(variables['params']) == ['node1_input0', 'node2_input1', 'node2_merge', 'node3_input0', 'node4_input1',
                                         'node4_merge']
  conv = lambda name, x: ConvBN(3, 1, activation=jax.nn.relu).apply(
      {kind: part[name] for kind, part in variables.items()}, x, False)

  def motif(x, first, last):
    ends = [max_pool(x, 3, 1, 'SAME'), conv(f'{last}_input1', conv(f'{first}_input0', x))]
    return conv(f'{last}_merge', jnp.concatenate(ends, -1))

  want = motif(motif(X, 'node1', 'node2'), 'node3', 'node4')
  np.testing.assert_allclose(cell.apply(variables, X, False), want, rtol=1e-4, atol=1e-5)


def test_the_chain_of_identities_is_the_identity_and_no_way_is_zero():
  space = motif_space()
  cell = HierarchicalCell(flatten(space, identity_chain(space)))
  y, variables = cell.init_with_output(KEY, X, False)
  np.testing.assert_array_equal(y, X)
  assert not variables
  y = HierarchicalCell(flatten(space, dict.fromkeys(space, 'none'))).apply({}, X.astype(jnp.bfloat16), False)
  np.testing.assert_array_equal(y, np.zeros(X.shape))
  assert y.dtype == jnp.bfloat16


@pytest.mark.parametrize('name', PRIMITIVES)
def test_primitives(name):
  cell = HierarchicalCell((((name, 0),),))
  variables = variables_of(cell)
  part = {kind: part.get('node1_input0', {}) for kind, part in variables.items()}
  conv = lambda **how: ConvBN(3, activation=jax.nn.relu, **how).apply(part, X, False)
  want = {'conv_1x1': lambda: conv(kernel=1), 'depthwise_conv_3x3': lambda: conv(groups=3),
          'sep_conv_3x3': lambda: SeparableConv(3, activation=jax.nn.relu).apply(part, X, False),
          'max_pool_3x3': lambda: max_pool(X, 3, 1, 'SAME'),
          'avg_pool_3x3': lambda: avg_pool(X, 3, 1, 'SAME', count_padding=False), 'identity': lambda: X}[name]()
  np.testing.assert_allclose(cell.apply(variables, X, False), want, rtol=1e-5, atol=1e-6)


def test_every_parameter_trains():
  """Two inputs of a node may be the same one."""
  cell = HierarchicalCell(((('conv_1x1', 0), ('identity', 0), ('identity', 0)), (('conv_1x1', 1), ('max_pool_3x3', 0))))
  variables = variables_of(cell)

  def loss(params):
    y, _ = cell.apply({**variables, 'params': params}, X, True, mutable=['batch_stats'])
    return jnp.sum(jnp.sin(y) * jnp.arange(1., y.size + 1).reshape(y.shape))

  gradient = tree.leaves(jax.jit(jax.grad(loss))(variables['params']))
  assert len(gradient) == 4 * 3 and all(np.any(g) for g in gradient.values())


def test_errors():
  with pytest.raises(EffjaxError, match="HierarchicalCell: node 1 has the unknown operator 'conv': known are "):
    HierarchicalCell(((('conv', 0),),)).init(KEY, X, False)
  with pytest.raises(EffjaxError, match='HierarchicalCell: node 1 reads node 1, known there are 0 to 0: order the nodes'):
    HierarchicalCell(((('identity', 1),),)).init(KEY, X, False)
