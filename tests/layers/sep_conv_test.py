"""Separable convolutions against NumPy in float64."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import tree
from effjax.layers import SepConv


def depthwise(x, w, strides):
  """Of [n, h, w, c] with a kernel [k, k, 1, c], padded by half of it."""
  k = w.shape[0]
  x = np.pad(x, ((0, 0), (k // 2,) * 2, (k // 2,) * 2, (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::strides, ::strides]
  return np.einsum('nhwcab,abc->nhwc', windows, w[:, :, 0])


def pointwise(x, leaves, name):
  """1x1 convolution and BatchNorm."""
  get = lambda leaf, part='params': leaves[f'{part}/{name}/{leaf}']
  x = x @ get('conv/kernel')[0, 0]
  return ((x - get('bn/mean', 'batch_stats')) / np.sqrt(get('bn/var', 'batch_stats') + 1e-3) * get('bn/scale')
          + get('bn/bias'))


def drawn(layer, x):
  """Variables of a layer, no two alike, and as float64 by path."""
  shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), x, False))
  rng = np.random.default_rng(1)
  variables = jax.tree.map(lambda s: jnp.asarray(rng.uniform(.5, 1.5, s.shape) * rng.choice([-1, 1], s.shape[-1:])
                                                 if len(s.shape) > 1 else rng.uniform(.5, 1.5, s.shape), jnp.float32), shapes)
  return variables, {path: np.asarray(leaf, np.float64) for path, leaf in tree.leaves(variables).items()}


@pytest.mark.parametrize(('kernel', 'strides'), [(3, 1), (5, 2), (7, 1)])
def test_sep_conv_is_applied_twice_and_strides_once(kernel, strides):
  layer, x = SepConv(4, strides, kernel, padding='symmetric'), np.random.default_rng(0).normal(size=(2, 9, 8, 3))
  variables, leaves = drawn(layer, jnp.asarray(x, jnp.float32))
  y = x
  for i, step in ((1, strides), (2, 1)):
    y = pointwise(depthwise(np.maximum(y, 0), leaves[f'params/depthwise{i}/conv/kernel'], step), leaves, f'pointwise{i}')
  np.testing.assert_allclose(layer.apply(variables, jnp.asarray(x, jnp.float32), False), y, rtol=1e-4, atol=1e-3)
  assert sum(leaf.size for path, leaf in leaves.items() if path.startswith('params')) == (
      kernel**2 * (3 + 4) + 3 * 4 + 4 * 4 + 2 * (4 + 4))
