"""GhostNet's convolution: its two parts, what it costs, errors."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import GhostModule

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 5, 6, 4))


@pytest.mark.parametrize('ratio', [2, 3])
def test_primary_and_derived_features(ratio):
  """Channel c of the derived ones is the correlation of channel c // (ratio - 1) of the primary ones with one filter."""
  net = GhostModule(6, ratio, activation=None, epsilon=0.)
  y, variables = jax.jit(lambda key: net.init_with_output(key, X, False))(KEY)
  params, p = jax.tree.map(np.float64, variables['params']), 6 // ratio
  primary = np.float64(X) @ params['primary']['conv']['kernel'][0, 0]
  padded, kernel = np.pad(primary, ((0, 0), (1, 1), (1, 1), (0, 0))), params['cheap']['conv']['kernel']
  derived = np.stack([sum(padded[:, a:a + 5, b:b + 6, c // (ratio - 1)] * kernel[a, b, 0, c]
                          for a in range(3) for b in range(3)) for c in range(6 - p)], -1)
  np.testing.assert_allclose(y, np.concatenate([primary, derived], -1), rtol=1e-5, atol=1e-5)


def test_parameters():
  shapes = jax.eval_shape(lambda key: GhostModule(8, kernel=3, cheap=5).init(key, X, False)['params'], KEY)
  kernels = {name: layer['conv']['kernel'].shape for name, layer in shapes.items()}
  assert kernels == {'primary': (3, 3, 4, 4), 'cheap': (5, 5, 1, 4)}


def test_the_activation_is_on_both_parts():
  y = GhostModule(6, activation=lambda x: jnp.full_like(x, 7.)).init_with_output(KEY, X, False)[0]
  np.testing.assert_array_equal(y, np.full((2, 5, 6, 6), 7.))


def test_features_that_ratio_does_not_divide():
  with pytest.raises(EffjaxError, match=r'GhostModule \(top\): ratio 3 does not divide 8 features: choose multiples of it'):
    GhostModule(8, 3).init(KEY, X, False)
