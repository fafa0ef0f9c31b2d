"""Interleaved group convolutions: paths, the dense kernel that they are, and the formula of their width."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import IGCV1

KEY, SPATIAL = jax.random.key(0), 9


def params_of(channels, width):
  return jax.eval_shape(lambda: IGCV1(channels, width).init(KEY, jnp.ones((1, 3, 3, channels)), False))['params']


@pytest.mark.parametrize(('channels', 'width'), [(12, 2), (12, 3), (12, 4), (8, 8)])
def test_one_path_from_every_input_to_every_output(channels, width):
  block, x = IGCV1(channels, width, activation=None, epsilon=0.), jnp.ones((1, 1, 1, channels))
  shapes = jax.eval_shape(lambda: block.init(KEY, x, False))
  variables = jax.tree.unflatten(jax.tree.structure(shapes), [
    jnp.zeros(leaf.shape) if path[-1].key in ('mean', 'bias') else jnp.ones(leaf.shape)
    for path, leaf in jax.tree.leaves_with_path(shapes)])
  paths = jax.jit(jax.jacobian(lambda x: block.apply(variables, x, False).ravel()))(x).reshape(channels, channels)
  np.testing.assert_array_equal(paths, 1.)


def test_is_the_dense_convolution_of_the_composite_kernel():
  """W[i, j, c, f] = W_s[l, f] W_p[i, j, c, p], through the only channel p in the groups of both."""
  groups, width = 3, 2
  block, x = IGCV1(6, width, activation=None, epsilon=0.), jax.random.normal(KEY, (1, 5, 5, 6))
  out, variables = jax.jit(lambda: block.init_with_output(KEY, x, False))()
  primary = np.float64(variables['params']['primary']['conv']['kernel'])       # [3, 3, M, C]
  secondary = np.float64(variables['params']['secondary']['conv']['kernel'])[0, 0]  # [L, C]
  dense = np.zeros((3, 3, 6, 6))
  for c in range(6):
    for f in range(6):
      l, m = c // width, f % width      # the group of the input, and the place of the output within its own
      dense[:, :, c, f] = primary[:, :, c % width, l * width + m] * secondary[l, m * groups + f // width]
  padded = np.pad(np.float64(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
  expected = sum(padded[:, i:i + 5, j:j + 5] @ dense[i, j] for i in range(3) for j in range(3))
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('channels', 'width'), [(64, 2), (48, 4), (100, 10)])
def test_weights(channels, width):
  groups, params = channels // width, params_of(channels, width)
  weights = sum(params[name]['conv']['kernel'].size for name in ('primary', 'secondary'))
  assert weights == groups * width**2 * SPATIAL + width * groups**2


@pytest.mark.parametrize(('weights', 'ratio', 'channels', 'dense'),
                         [(4672, 1.04, 84, 22), (17_536, 1.39, 200, 44), (100_000, 1.125, 648, 105)])
def test_widest_where_groups_are_their_width_times_the_kernel(weights, ratio, channels, dense):
  """Brute force over all L, M of at most so many weights; a dense convolution has sqrt(T / S) channels."""
  fits = [(l * m, l / (m * SPATIAL)) for m in range(1, 200) for l in range(1, 2000)
          if l * m**2 * SPATIAL + m * l**2 <= weights]
  widest, found = max(fits)
  assert widest == channels and abs(found - ratio) < .005
  assert int((weights / SPATIAL)**.5) == dense < widest


def test_more_features_than_channels():
  params = jax.eval_shape(lambda: IGCV1(24, 2, 2).init(KEY, jnp.ones((1, 4, 4, 12)), False))['params']
  assert params['primary']['conv']['kernel'].shape == (3, 3, 2, 24)       # 6 groups, each of 2 to 4 channels
  assert params['secondary']['conv']['kernel'].shape == (1, 1, 12, 24)    # 2 groups, each of 12 to 12


def test_channels_that_the_width_does_not_divide():
  with pytest.raises(EffjaxError, match='Conv primary: 2 groups do not divide 7 input and 7 output channels'):
    params_of(7, 3)
