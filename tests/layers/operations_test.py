"""The table of operations: shapes, weights, and those without weights against brute force."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.layers import OPERATIONS

# Weights of kernels for 4 channels in and out, strides 1 and 2; BatchNorm has 8 behind each pointwise convolution.
SEP = lambda k: 2 * (k * k * 4 + 16 + 8)
DIL = lambda k: k * k * 4 + 16 + 8
WEIGHTS = {
    'none': (0, 0), 'skip_connect': (0, 16 + 8), 'max_pool_3x3': (0, 0), 'avg_pool_3x3': (0, 0),
    **{f'sep_conv_{k}x{k}': (SEP(k),) * 2 for k in (3, 5, 7)}, **{f'dil_conv_{k}x{k}': (DIL(k),) * 2 for k in (3, 5)},
    'conv_7x1_1x7': (2 * 7 * 16 + 8,) * 2, 'bottleneck_7x1_1x7': (4 + 2 * 7 + 4 + 3 * 2 + 8,) * 2}


@pytest.mark.parametrize('strides', [1, 2])
@pytest.mark.parametrize('name', OPERATIONS)
def test_every_operation_keeps_channels_and_strides(name, strides):
  op, x = OPERATIONS[name](4, strides, padding='symmetric'), jax.ShapeDtypeStruct((2, 9, 6, 4), jnp.float32)
  out, variables = jax.eval_shape(lambda x: op.init_with_output(jax.random.key(0), x, True), x)
  assert out.shape == (2, -(-9 // strides), 6 // strides, 4)
  found = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(variables.get('params', {})))
  assert found == WEIGHTS[name][strides - 1]


@pytest.mark.parametrize(('name', 'reduce'), [('max_pool_3x3', np.max), ('avg_pool_3x3', np.mean)])
@pytest.mark.parametrize('strides', [1, 2])
def test_poolings_see_the_image_alone(name, reduce, strides):
  x = np.random.default_rng(0).normal(size=(1, 7, 6, 2)) - 9  # zeros would be the maximum
  y = OPERATIONS[name](2, strides, padding='symmetric').apply({}, jnp.asarray(x, jnp.float32), False)
  starts = [(i, j) for i in range(0, 7, strides) for j in range(0, 6, strides)]
  windows = [x[0, max(0, i - 1):i + 2, max(0, j - 1):j + 2] for i, j in starts]
  np.testing.assert_allclose(y.reshape(-1, 2), [reduce(window, (0, 1)) for window in windows], rtol=1e-5)


def test_identity_and_zero():
  x = jnp.ones((1, 4, 4, 2))
  np.testing.assert_array_equal(OPERATIONS['skip_connect'](2, 1).apply({}, x, True), x)
  np.testing.assert_array_equal(OPERATIONS['none'](2, 1).apply({}, x, True), 0)
