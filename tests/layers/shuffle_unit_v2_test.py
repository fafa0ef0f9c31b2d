"""ShuffleNetV2's unit: which channels pass, and which are convolved."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import ShuffleUnitV2

KEY = jax.random.key(0)


def kernels_of(variables):
  return {name: np.float64(layer['conv']['kernel']) for name, layer in variables['params'].items()}


def branch(x, kernels):
  """1x1, depthwise, 1x1 of a single pixel, of which the depthwise kernel is its centre."""
  x = np.maximum(x @ kernels['reduce'][0, 0], 0.)
  return np.maximum(x * kernels['depthwise'][1, 1, 0] @ kernels['expand'][0, 0], 0.)


@pytest.mark.parametrize('authors', [False, True])
def test_half_of_the_channels_pass(authors):
  unit, x = ShuffleUnitV2(8, authors=authors, epsilon=0.), jax.random.normal(KEY, (3, 1, 1, 8))
  out, variables = jax.jit(lambda: unit.init_with_output(KEY, x, False))()
  first, second = (x[..., ::2], x[..., 1::2]) if authors else (x[..., :4], x[..., 4:])
  passed, made = (out[..., :4], out[..., 4:]) if authors else (out[..., ::2], out[..., 1::2])
  np.testing.assert_array_equal(passed, first)
  np.testing.assert_allclose(made, branch(np.float64(second), kernels_of(variables)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('authors', [False, True])
def test_the_unit_that_halves_convolves_both(authors):
  unit, x = ShuffleUnitV2(20, 2, authors=authors, epsilon=0.), jax.random.normal(KEY, (3, 1, 1, 6))
  out, variables = jax.jit(lambda: unit.init_with_output(KEY, x, False))()
  kernels, shortcut = kernels_of(variables), 6 if authors else 10
  passed, made = (out[..., :6], out[..., 6:]) if authors else (out[..., ::2], out[..., 1::2])
  assert passed.shape[-1] == shortcut and made.shape[-1] == 20 - shortcut
  expected = np.float64(x) * kernels['shortcut_depthwise'][1, 1, 0] @ kernels['shortcut'][0, 0]
  np.testing.assert_allclose(passed, np.maximum(expected, 0.), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(made, branch(np.float64(x), kernels), rtol=1e-5, atol=1e-6)


def test_kernel_of_the_depthwise_convolutions():
  unit = ShuffleUnitV2(8, 2, kernel=5)
  params = jax.eval_shape(lambda: unit.init(KEY, jnp.ones((1, 8, 8, 8)), False))['params']
  assert {name: layer['conv']['kernel'].shape[0] for name, layer in params.items()} == {
    'reduce': 1, 'depthwise': 5, 'expand': 1, 'shortcut_depthwise': 5, 'shortcut': 1}


def test_an_odd_number_of_features():
  with pytest.raises(EffjaxError, match=r'ShuffleUnitV2 \(top\): 7 features have no halves: choose an even number'):
    ShuffleUnitV2(7).init(KEY, jnp.ones((1, 4, 4, 7)), False)


def test_what_passes_is_as_much_as_the_branch_gives():
  """Also in a shrunk network, where the shuffle before may have left the halves with different numbers of channels."""
  unit = ShuffleUnitV2(8, widths={'expand': 2})
  shapes = jax.eval_shape(lambda: unit.init_with_output(KEY, jnp.ones((1, 4, 4, 6)), False))
  assert shapes[0].shape[-1] == 4
  assert shapes[1]['params']['reduce']['conv']['kernel'].shape[2] == 4
