"""Xception's convolution against the dense one that it factorises."""
import jax
import numpy as np
import pytest
from jax import lax

from effjax.layers import SeparableConv

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 6, 6, 4))


@pytest.mark.parametrize(('strides', 'kernel'), [(1, 3), (2, 3), (1, 5)])
def test_the_dense_kernel_is_an_outer_product(strides, kernel):
  net = SeparableConv(5, strides, kernel, epsilon=0.)
  out, variables = jax.jit(lambda key: net.init_with_output(key, X, False))(KEY)
  depthwise, pointwise = (variables['params'][name]['conv']['kernel'] for name in ('depthwise', 'pointwise'))
  dense = depthwise[:, :, 0, :, None] * pointwise
  y = lax.conv_general_dilated(X, dense, (strides,) * 2, 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  np.testing.assert_allclose(out, y, rtol=1e-4, atol=1e-5)
  assert sorted(variables['params']['depthwise']) == ['conv']
