"""MobileNetV4's block: its four forms, errors."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import InvertedResidual, UniversalInvertedBottleneck

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 6, 6, 4))


@pytest.mark.parametrize(('start', 'middle'), [(0, 0), (0, 5), (3, 0), (3, 5)])
def test_parameters_and_strides(start, middle):
  strides = 2 if start or middle else 1
  block = UniversalInvertedBottleneck(6, 8, start, middle, strides)
  y, variables = jax.eval_shape(lambda key: block.init_with_output(key, X, False), KEY)
  kernels = {name: layer['conv']['kernel'].shape for name, layer in variables['params'].items()}
  expected = {'expand': (1, 1, 4, 8), 'project': (1, 1, 8, 6)}
  expected |= {'start': (start, start, 1, 4)} if start else {}
  expected |= {'middle': (middle, middle, 1, 8)} if middle else {}
  assert kernels == expected and y.shape == (2, 6 // strides, 6 // strides, 6)


def test_the_middle_alone_is_an_inverted_residual():
  block = UniversalInvertedBottleneck(4, 8, 0, 3, residual=True)
  other = InvertedResidual(4, expand=2, activation=jax.nn.relu)

  @jax.jit
  def both(key):
    y, variables = block.init_with_output(key, X, False)
    renamed = {kind: {{'middle': 'depthwise'}.get(name, name): layer for name, layer in layers.items()}
               for kind, layers in variables.items()}
    return y, other.apply(renamed, X, False)

  np.testing.assert_array_equal(*both(KEY))


def test_start_and_project_are_linear():
  block = UniversalInvertedBottleneck(4, 8, 3, 3, activation=lambda x: jnp.full_like(x, 2.))

  @jax.jit
  def outputs(key):
    y, variables = block.init_with_output(key, X, False)
    return y, variables['params']['project']['conv']['kernel']

  y, kernel = outputs(KEY)
  expected = 2. * np.float64(kernel[0, 0]).sum(0) / np.sqrt(1.001)
  np.testing.assert_allclose(y, np.broadcast_to(expected, y.shape), rtol=1e-4)
  assert (expected < 0).any()


def test_strides_of_nothing():
  with pytest.raises(EffjaxError, match=r'UniversalInvertedBottleneck \(top\): strides 2 without a depthwise convolution: gi'):
    UniversalInvertedBottleneck(4, 8, 0, 0, 2).init(KEY, X, False)
