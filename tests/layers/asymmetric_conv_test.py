"""A row and a column are a kernel of rank one per path; strides on one axis each."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from effjax.layers import AsymmetricConv


@pytest.mark.parametrize('strides', [1, 2])
def test_row_and_column_are_one_square_kernel(strides):
  layer, x = AsymmetricConv(4, strides, padding='symmetric'), jax.random.normal(jax.random.key(0), (2, 10, 8, 3))
  variables = layer.init(jax.random.key(1), x, False)
  row, column = (np.asarray(variables['params'][name]['conv']['kernel'], np.float64) for name in ('row', 'column'))
  assert row.shape == (1, 7, 3, 4) and column.shape == (7, 1, 4, 4)
  square = jnp.asarray(np.einsum('bim,amo->abio', row[0], column[:, 0]), jnp.float32)
  y = lax.conv_general_dilated(jnp.maximum(x, 0), square, (strides, strides), ((3, 3), (3, 3)),
                               dimension_numbers=('NHWC', 'HWIO', 'NHWC')) / np.sqrt(1.001)
  np.testing.assert_allclose(layer.apply(variables, x, False), y, rtol=1e-4, atol=1e-4)


def test_bottleneck():
  layer, x = AsymmetricConv(8, 2, 7, 2), jnp.ones((1, 8, 6, 3))
  out, variables = layer.init_with_output(jax.random.key(0), x, False)
  assert out.shape == (1, 4, 3, 8)
  kernels = {name: leaves['conv']['kernel'].shape for name, leaves in variables['params'].items()}
  assert kernels == {'reduce': (1, 1, 3, 2), 'row': (1, 7, 2, 2), 'column': (7, 1, 2, 2), 'expand': (1, 1, 2, 8)}
