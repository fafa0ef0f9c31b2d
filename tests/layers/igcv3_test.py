"""IGCV3's block: which parts are linear, and that groups of both 1x1 convolutions cross."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import IGCV3

KEY = jax.random.key(0)


def grouped(x, kernel):
  a, b = np.split(x, 2, -1)
  k, m = np.split(kernel[0, 0], 2, -1)
  return np.concatenate([a @ k, b @ m], -1)


@pytest.mark.parametrize('residual', [False, True])
def test_is_the_reference(residual):
  """Of single pixels: groups, shuffle, the centre of the depthwise kernel with ReLU6, groups."""
  block = IGCV3(4, 24, residual=residual, epsilon=0.)
  x = 4. * jax.random.normal(KEY, (64, 1, 1, 4))
  out, variables = jax.jit(lambda: block.init_with_output(KEY, x, False))()
  kernels = {name: np.float64(layer['conv']['kernel']) for name, layer in variables['params'].items()}
  y = grouped(np.float64(x), kernels['expand'])
  y = np.stack([y[..., :12], y[..., 12:]], -1).reshape(y.shape)
  y = np.clip(y * kernels['depthwise'][1, 1, 0], 0., 6.)
  np.testing.assert_allclose(out, grouped(y, kernels['project']) + residual * np.float64(x), rtol=1e-4, atol=1e-4)


def test_every_output_sees_every_input():
  block, x = IGCV3(6, 12), jnp.full((1, 1, 1, 6), .1)
  variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), jax.eval_shape(lambda: block.init(KEY, x, False)))
  seen = jax.jit(jax.jacobian(lambda x: block.apply(variables, x, False).ravel()))(x)
  assert seen.size == 36 and jnp.all(seen > 0)


def test_channels_that_groups_do_not_divide():
  with pytest.raises(EffjaxError, match='ConvBN expand: 2 groups do not divide 5 input and 30 output channels'):
    IGCV3(5, 30).init(KEY, jnp.ones((1, 4, 4, 5)), False)
