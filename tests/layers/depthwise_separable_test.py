"""The block of MobileNet: factorised, counted, wired."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from effjax.layers import DepthwiseSeparable

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 6, 6, 3))


def conv(x, w, strides=1):
  return lax.conv_general_dilated(x, w, (strides, strides), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


@pytest.mark.parametrize(('kernel', 'strides'), [(3, 1), (5, 2)])
def test_without_activation_it_is_one_dense_convolution_of_rank_one_kernels(kernel, strides):
  net = DepthwiseSeparable(4, strides, kernel, activation=None)
  y, variables = net.init_with_output(KEY, X, False)
  p = variables['params']
  w = jnp.einsum('hwoc,xycf->hwcf', p['depthwise']['conv']['kernel'], p['pointwise']['conv']['kernel'])
  np.testing.assert_allclose(y, conv(X, w, strides) / 1.001, rtol=1e-4, atol=1e-5)  # two BatchNorms: 1 / (1 + 1e-3)


def test_both_convolutions_are_activated():
  net = DepthwiseSeparable(4, activation=lambda x: jnp.full_like(x, 2.))
  np.testing.assert_array_equal(net.init_with_output(KEY, X, False)[0], 2.)
  y, variables = DepthwiseSeparable(4).init_with_output(KEY, 100. * X, False)
  assert float(y.min()) == 0. and float(y.max()) <= 6.
  assert jax.tree.map(jnp.shape, variables['params']) == {
      'depthwise': {'conv': {'kernel': (3, 3, 1, 3)}, 'bn': {'scale': (3,), 'bias': (3,)}},
      'pointwise': {'conv': {'kernel': (1, 1, 3, 4)}, 'bn': {'scale': (4,), 'bias': (4,)}}}
