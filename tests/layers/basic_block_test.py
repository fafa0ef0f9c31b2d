"""The block of two 3x3 convolutions."""
import jax
import jax.numpy as jnp
import pytest

from effjax.layers import BasicBlock

KEY = jax.random.key(0)


@pytest.mark.parametrize('strides', [1, 2])
def test_parameters_and_shape(strides):
  net = BasicBlock(6, strides, 'project')
  out, variables = jax.eval_shape(lambda key: net.init_with_output(key, jnp.ones((1, 8, 8, 4)), False), KEY)
  assert out.shape == (1, 8 // strides, 8 // strides, 6)
  kernels = {name: layer['conv']['kernel'].shape for name, layer in variables['params'].items()}
  assert kernels == {'conv1': (3, 3, 4, 6), 'conv2': (3, 3, 6, 6), 'shortcut': (1, 1, 4, 6)}


def test_a_channel_of_the_first_convolution_may_be_missing():
  net = BasicBlock(4, widths={'conv1': 3})
  variables = jax.eval_shape(lambda key: net.init(key, jnp.ones((1, 8, 8, 4)), False), KEY)
  assert variables['params']['conv2']['conv']['kernel'].shape == (3, 3, 3, 4)
