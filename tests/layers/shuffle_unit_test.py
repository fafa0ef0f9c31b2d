"""ShuffleNet's unit against a float64 reference made of matrices."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import ShuffleUnit

KEY = jax.random.key(0)


def grouped(x, kernel, groups):
  """A 1x1 convolution in groups: one matrix each."""
  xs, kernels = np.split(x, groups, -1), np.split(kernel[0, 0], groups, -1)
  return np.concatenate([a @ k for a, k in zip(xs, kernels)], -1)


def windows(x, strides):
  """[3, 3, n, h2, w2, c]: what a 3x3 window padded by one reads."""
  x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  h, w = x.shape[1] - 2, x.shape[2] - 2
  return np.stack([np.stack([x[:, i:i + h:strides, j:j + w:strides] for j in range(3)]) for i in range(3)])


def reference(x, kernels, strides, groups, reduce_groups):
  y = np.maximum(grouped(x, kernels['reduce'], reduce_groups), 0.)
  y = np.concatenate([y[..., i::y.shape[-1] // groups] for i in range(y.shape[-1] // groups)], -1)
  y = np.einsum('ijnhwc,ijc->nhwc', windows(y, strides), kernels['depthwise'][:, :, 0])
  y = grouped(y, kernels['expand'], groups)
  return np.maximum(x + y if strides == 1 else np.concatenate([windows(x, 2).mean((0, 1)), y], -1), 0.)


@pytest.mark.parametrize(('strides', 'features', 'reduce_groups'), [(1, 12, None), (2, 36, None), (2, 36, 1)])
def test_is_the_reference(strides, features, reduce_groups):
  unit = ShuffleUnit(features, 3, strides, hidden=6, reduce_groups=reduce_groups, padding='symmetric', epsilon=0.)
  x = jax.random.normal(KEY, (2, 6, 8, 12))
  out, variables = jax.jit(lambda x: unit.init_with_output(KEY, x, False))(x)
  kernels = {name: np.float64(layer['conv']['kernel']) for name, layer in variables['params'].items()}
  expected = reference(np.float64(x), kernels, strides, 3, reduce_groups or 3)
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_zero_scale_is_the_identity_path():
  unit, x = ShuffleUnit(12), jax.random.normal(KEY, (1, 4, 4, 12))
  variables = jax.jit(lambda: unit.init(KEY, x, False))()
  variables['params']['expand']['bn']['scale'] *= 0.
  out = jax.jit(lambda variables: unit.apply(variables, x, False))(variables)
  np.testing.assert_array_equal(out, jnp.maximum(x, 0.))


def test_every_output_sees_every_input():
  """Of two layers in 3 groups each, by way of the shuffle."""
  unit, x = ShuffleUnit(36, hidden=18), jnp.ones((1, 1, 1, 36))
  shapes = jax.eval_shape(lambda: unit.init(KEY, x, False))
  variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
  seen = jax.jit(jax.jacobian(lambda x: unit.apply(variables, x, False).ravel()))(x)
  assert seen.size == 36**2 and jnp.all(seen > 0)


def test_the_average_of_same_padding_counts_what_is_there():
  unit, x = ShuffleUnit(24, strides=2), jnp.ones((1, 4, 4, 12))
  out = jax.jit(lambda: unit.init_with_output(KEY, x, False)[0])()
  np.testing.assert_array_equal(out[..., :12], 1.)


def test_channels_that_groups_do_not_divide():
  with pytest.raises(EffjaxError, match='ConvBN reduce: 3 groups do not divide 16 input and 4 output channels'):
    ShuffleUnit(16).init(KEY, jnp.ones((1, 4, 4, 16)), False)
