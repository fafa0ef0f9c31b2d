"""A dilated kernel is a larger one with zeros between."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.layers import Conv, DilConv


@pytest.mark.parametrize('padding', ['SAME', 'symmetric'])
@pytest.mark.parametrize(('kernel', 'strides'), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_dilated_kernel(kernel, strides, padding):
  layer, x = DilConv(4, strides, kernel, padding=padding), jax.random.normal(jax.random.key(0), (2, 9, 8, 3))
  variables = layer.init(jax.random.key(1), x, False)
  small = variables['params']['depthwise']['conv']['kernel']
  wide = 2 * kernel - 1
  stuffed = jnp.zeros((wide, wide, 1, 3)).at[::2, ::2].set(small)
  y = Conv(3, wide, strides, groups=3, padding=padding).apply({'params': {'conv': {'kernel': stuffed}}}, jnp.maximum(x, 0))
  y = y @ variables['params']['pointwise']['conv']['kernel'][0, 0] / np.sqrt(1 + 1e-3)
  np.testing.assert_allclose(layer.apply(variables, x, False), y, rtol=1e-4, atol=1e-5)
  assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == kernel**2 * 3 + 3 * 4 + 2 * 4
