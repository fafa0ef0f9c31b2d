"""The block of 1x1, 3x3, 1x1: where it has strides, and groups as a sum of branches."""
import jax
import numpy as np
import pytest

from effjax.layers import Bottleneck

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (1, 8, 8, 256))


@pytest.mark.parametrize('reduce_strides', [False, True])
def test_where_the_strides_are(reduce_strides):
  """The paper's block looks at every second pixel only."""
  net = Bottleneck(4, 2, 'project', reduce_strides=reduce_strides)

  def seen(key, x):
    return jax.grad(lambda x: net.apply(net.init(key, x, False), x, False)[:, 1, 1].sum())(x)
  images = jax.random.normal(KEY, (32, 8, 8, 3))
  support = np.abs(jax.jit(seen)(KEY, images)).sum((0, 3)) > 0  # of an output pixel
  rows = [0, 2, 4, 6] if reduce_strides else [2, 3, 4]
  expected = np.zeros((8, 8), bool)
  expected[np.ix_(rows, rows)] = True
  assert support.sum() == 9 and not (support & ~expected).any()


def spatial(x, kernel):
  """A 3x3 convolution by definition, SAME."""
  h, w = x.shape[1:3]
  x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return sum(x[:, i:i + h, j:j + w] @ kernel[i, j] for i in range(3) for j in range(3))


def test_groups_are_a_sum_of_branches():
  """ResNeXt-50 32x4d, stage 1: `sum_i T_i(x)` of 32 branches, whose kernels have 70,144 entries."""
  net = Bottleneck(64, hidden=128, groups=32, epsilon=0.)
  variables = jax.jit(lambda key: net.init(key, X, False))(KEY)
  kernels = {name: layer['conv']['kernel'] for name, layer in variables['params'].items()}
  assert sum(kernel.size for kernel in kernels.values()) == 32 * (256 * 4 + 9 * 4**2 + 256 * 4) == 70_144
  total = np.float64(X)
  for i in range(32):
    part = slice(4 * i, 4 * i + 4)
    y = np.maximum(np.float64(X) @ np.float64(kernels['reduce'][0, 0, :, part]), 0.)
    y = np.maximum(spatial(y, np.float64(kernels['spatial'][..., part])), 0.)
    total += y @ np.float64(kernels['expand'][0, 0, part])
  out = jax.jit(lambda variables: net.apply(variables, X, False))(variables)
  np.testing.assert_allclose(out, np.maximum(total, 0.), rtol=1e-4, atol=1e-4)
