"""Every entry is read, once, of even and odd sizes."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.layers import FactorizedReduce


@pytest.mark.parametrize('shape', [(8, 6), (7, 6), (7, 5), (1, 2)])
def test_even_and_odd_pixels(shape):
  x = np.random.default_rng(0).normal(size=(2, *shape, 3))
  layer = FactorizedReduce(5)
  variables = layer.init(jax.random.key(1), jnp.asarray(x, jnp.float32), False)
  kernels = [np.asarray(variables['params'][name]['conv']['kernel'][0, 0], np.float64) for name in ('even', 'odd')]
  assert [kernel.shape for kernel in kernels] == [(3, 2), (3, 3)]
  padded = np.pad(np.maximum(x, 0), ((0, 0), (0, 1), (0, 1), (0, 0)))
  even, odd = np.maximum(x, 0)[:, ::2, ::2], padded[:, 1::2, 1::2]
  expected = np.concatenate([even @ kernels[0], odd[:, :even.shape[1], :even.shape[2]] @ kernels[1]], -1) / np.sqrt(1.001)
  np.testing.assert_allclose(layer.apply(variables, jnp.asarray(x, jnp.float32), False), expected, rtol=1e-5, atol=1e-5)


def test_a_pixel_of_each_diagonal_pair_reaches_the_output():
  """Even rows with even columns, odd with odd: half of the pixels, where a 1x1 convolution with strides reads a quarter."""
  layer, x = FactorizedReduce(2), jnp.ones((1, 6, 8, 1))
  variables = layer.init(jax.random.key(0), x, False)
  read = jax.grad(lambda x: jnp.sum(jnp.abs(layer.apply(variables, x, False))))(x)[0, :, :, 0] != 0
  rows, columns = np.indices(read.shape)
  np.testing.assert_array_equal(read, rows % 2 == columns % 2)
