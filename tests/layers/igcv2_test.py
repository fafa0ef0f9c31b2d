"""IGCV2: paths, the condition for them, and how many weights it takes."""
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import IGCV2

KEY = jax.random.key(0)


@pytest.mark.parametrize('factors', [(4, 4, 4), (8, 8), (2, 3, 4), (6,)])
def test_one_path_from_every_input_to_every_output(factors):
  channels = math.prod(factors)
  block, x = IGCV2(channels, factors, activation=None, epsilon=0.), jnp.ones((1, 1, 1, channels))
  shapes = jax.eval_shape(lambda: block.init(KEY, x, False))
  variables = jax.tree.unflatten(jax.tree.structure(shapes), [
    jnp.zeros(leaf.shape) if path[-1].key in ('mean', 'bias') else jnp.ones(leaf.shape)
    for path, leaf in jax.tree.leaves_with_path(shapes)])
  paths = jax.jit(jax.jacobian(lambda x: block.apply(variables, x, False).ravel()))(x).reshape(channels, channels)
  np.testing.assert_array_equal(paths, 1.)


def test_is_the_product_of_sparse_matrices():
  """Of a single pixel: block-diagonal W_l and permutations P_l, written out."""
  block, x = IGCV2(12, (3, 4), activation=None, epsilon=0.), jax.random.normal(KEY, (5, 1, 1, 12))
  out, variables = jax.jit(lambda: block.init_with_output(KEY, x, False))()
  kernels = {name: np.float64(layer['conv']['kernel']) for name, layer in variables['params'].items()}
  y = np.float64(x).reshape(5, 12) * kernels['depthwise'][1, 1, 0]
  for name, factor in (('pointwise1', 3), ('pointwise2', 4)):
    groups, matrix, permuted = 12 // factor, np.zeros((12, 12)), np.zeros((12, 12))
    for g in range(groups):
      part = slice(g * factor, (g + 1) * factor)
      matrix[part, part] = kernels[name][0, 0, :, part]
      for k in range(factor):
        permuted[g * factor + k, k * groups + g] = 1.
    y = y @ matrix @ permuted
  np.testing.assert_allclose(out.reshape(5, 12), y, rtol=1e-4, atol=1e-5)


def test_weights_of_the_pointwise_convolutions():
  params = jax.eval_shape(lambda: IGCV2(64, (4, 4, 4)).init(KEY, jnp.ones((1, 4, 4, 64)), False))['params']
  sizes = {name: layer['conv']['kernel'].size for name, layer in params.items()}
  assert sizes.pop('depthwise') == 9 * 64
  assert sum(sizes.values()) == 64 * (4 + 4 + 4) == 768 < 64**2


def test_fewest_weights_near_the_logarithm():
  """`Q(L) = C L (S C)^(1/L)` of the balanced block, per channel."""
  channels, spatial = 512, 9
  weights = {depth: depth * (spatial * channels)**(1 / depth) for depth in range(1, 20)}
  best = min(weights, key=weights.get)
  assert best == round(math.log(spatial * channels)) == 8
  assert round(channels * weights[best]) == 11_757


def test_twice_the_channels_at_half_the_size():
  block = IGCV2(24, (4, 6), strides=2)
  shapes = jax.eval_shape(lambda: block.init_with_output(KEY, jnp.ones((1, 8, 8, 12)), False))
  assert shapes[0].shape == (1, 4, 4, 24)
  assert shapes[1]['params']['depthwise']['conv']['kernel'].shape == (3, 3, 1, 24)


def test_factors_that_leave_pairs_without_a_path():
  with pytest.raises(EffjaxError, match=r'IGCV2 \(top\): the factors \(3, 3\) multiply to 9, wanted the 12 features: choose'):
    IGCV2(12, (3, 3)).init(KEY, jnp.ones((1, 4, 4, 12)), False)
