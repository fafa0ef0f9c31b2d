"""The large kernel against one dense kernel, and its weights."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from effjax.layers.global_convolution import GlobalConvolution

X = jax.random.normal(jax.random.key(0), (2, 9, 11, 3))


def dense(params, kernel):
  """The kernel `[k, k, cin, features]` of the same sum, in float64."""
  w = jax.tree.map(np.float64, {name: part['conv']['kernel'] for name, part in params.items()})
  first = np.einsum('aim,bmo->abio', w['column1'][:, 0], w['row1'][0])
  second = np.einsum('bim,amo->abio', w['row2'][0], w['column2'][:, 0])
  assert first.shape[:2] == (kernel, kernel)
  return first + second


@pytest.mark.parametrize('kernel', [3, 7])
def test_one_dense_kernel_away_from_the_borders(kernel):
  net = GlobalConvolution(4, kernel, padding='VALID')
  y, variables = net.init_with_output(jax.random.key(1), X)
  wanted = lax.conv_general_dilated(X, jnp.float32(dense(variables['params'], kernel)), (1, 1), 'VALID',
                                    dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  np.testing.assert_allclose(y, wanted, atol=1e-5)
  inner = slice(kernel // 2, -(kernel // 2))
  same = GlobalConvolution(4, kernel).apply(variables, X)
  assert same.shape == (2, 9, 11, 4)
  np.testing.assert_allclose(same[:, inner, inner], y, atol=1e-5)


@pytest.mark.parametrize('kernel', [3, 15])
def test_weights_of_21_classes_on_2048_channels(kernel):
  x = jax.ShapeDtypeStruct((1, 16, 16, 2048), jnp.float32)
  params = jax.eval_shape(lambda x: GlobalConvolution(21, kernel).init(jax.random.key(0), x), x)
  assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == 2 * kernel * 21 * (2048 + 21)


def test_the_branches_share_nothing_and_are_linear():
  net = GlobalConvolution(4, 5)
  variables = net.init(jax.random.key(1), X)
  assert set(variables['params']) == {'column1', 'row1', 'row2', 'column2'}
  apply = lambda x: net.apply(variables, x)
  np.testing.assert_allclose(apply(X) + apply(2 * X[::-1]), apply(X + 2 * X[::-1]), atol=1e-5)
