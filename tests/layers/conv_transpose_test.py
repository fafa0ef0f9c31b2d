"""The transposed convolution by its definition, and as the transpose of a convolution."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from effjax.layers.conv_transpose import ConvTranspose

X = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))


def scattered(x, w, strides):
  """Each entry adds its turned kernel; half of what is too much is cut off on either side."""
  x, w = np.float64(x), np.float64(w)
  n, height, width, _ = x.shape
  k = w.shape[0]
  whole = np.zeros((n, height * strides + k, width * strides + k, w.shape[3]))
  for i in range(height):
    for j in range(width):
      whole[:, i * strides:i * strides + k, j * strides:j * strides + k] += np.einsum(
        'ni,abio->nabo', x[:, i, j], w[::-1, ::-1])
  low = max(k - strides, 0) // 2
  return whole[:, low:low + height * strides, low:low + width * strides]


@pytest.mark.parametrize(('kernel', 'strides'), [(2, 2), (3, 2), (4, 2), (3, 1), (8, 4)])
def test_by_its_definition(kernel, strides):
  y, variables = ConvTranspose(6, kernel, strides).init_with_output(jax.random.key(1), X)
  w = variables['params']['conv']['kernel']
  assert w.shape == (kernel, kernel, 5, 6)
  np.testing.assert_allclose(y, scattered(X, w, strides), atol=1e-5)


def test_the_transpose_of_a_convolution():
  net = ConvTranspose(6, 4, 2)
  y, variables = net.init_with_output(jax.random.key(1), X)
  w = variables['params']['conv']['kernel'][::-1, ::-1].swapaxes(2, 3)
  convolved = lax.conv_general_dilated(y, w, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  transposed = jax.vjp(lambda x: net.apply(variables, x), X)[1](y)[0]
  np.testing.assert_allclose(transposed, convolved, rtol=1e-4, atol=1e-5)


def test_other_widths():
  net = ConvTranspose(6, widths={'': 3})
  assert net.init_with_output(jax.random.key(1), jnp.ones((1, 2, 2, 3)))[0].shape == (1, 4, 4, 3)
