"""What blocks agree on: paddings, widths, groups."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import Block, ConvBias, ConvBN, Dense, round_channels

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (1, 8, 8, 4))


class Two(Block):
  """A block of blocks."""

  @nn.compact
  def __call__(self, x, train):
    return ConvBN(6, name='second', **self.same)(ConvBias(4, 1, name='first', **self.same)(x, train), train)


def test_what_a_network_agrees_on_reaches_its_layers():
  net = Two(dtype=jnp.bfloat16, epsilon=1., padding='VALID', widths={'first': 3, 'second': 5})
  y, variables = net.init_with_output(KEY, X, False)
  assert y.shape == (1, 6, 6, 5) and y.dtype == jnp.bfloat16
  assert variables['params']['second']['conv']['kernel'].shape == (3, 3, 3, 5)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  one = jax.tree.map(jnp.ones_like, variables)
  y = Two(epsilon=3., padding='VALID', widths=net.widths).apply(one, jnp.ones_like(X), False)
  np.testing.assert_allclose(y, np.minimum(1 + (9 * 3 * (4 + 1) - 1) / np.sqrt(1 + 3), 6.))  # ReLU6


@pytest.mark.parametrize(('kernel', 'dilation'), [(3, 1), (5, 1), (3, 2), ((1, 7), 1), (2, 1)])
def test_symmetric_padding_is_that_of_pytorch(kernel, dilation):
  net = ConvBias(2, kernel, 2, activation=None, dilation=dilation, padding='symmetric')
  y, variables = net.init_with_output(KEY, X, False)
  size = (kernel, kernel) if isinstance(kernel, int) else kernel
  pads = [dilation * (k - 1) // 2 for k in size]
  assert y.shape[1:3] == tuple((8 + 2 * p - dilation * (k - 1) - 1) // 2 + 1 for p, k in zip(pads, size, strict=True))
  padded = np.pad(np.float64(X), ((0, 0), *[(p, p) for p in pads], (0, 0)))
  first = padded[0, :dilation * (size[0] - 1) + 1:dilation, :dilation * (size[1] - 1) + 1:dilation]
  np.testing.assert_allclose(y[0, 0, 0], np.einsum('abi,abio->o', first, variables['params']['conv']['kernel']), rtol=1e-5)


def test_pairs_pad_as_they_say():
  y = ConvBias(2, 3, padding=((0, 2), (1, 0))).init_with_output(KEY, X, False)[0]
  assert y.shape == (1, 8, 7, 2)


def test_errors():
  with pytest.raises(EffjaxError, match=r'ConvBN \(top\): 3 groups do not divide 4 input and 6 output channels: choose'):
    ConvBN(6, groups=3).init(KEY, X, False)
  with pytest.raises(EffjaxError, match=r"padding 'same' is unknown: choose one of \('SAME', 'VALID', 'symmetric'\)"):
    ConvBN(6, padding='same').init(KEY, X, False)


def test_round_channels_loses_at_most_a_tenth():
  for channels in np.linspace(4, 400, 500):
    rounded = round_channels(channels)
    assert rounded % 8 == 0 and rounded >= .9 * channels and rounded - channels <= 8


def test_dense_over_the_last_axis():
  y, variables = Dense(3, nn.relu, widths={'': 2}).init_with_output(KEY, X)
  p = variables['params']
  np.testing.assert_allclose(y, np.maximum(np.float64(X) @ np.float64(p['kernel']) + np.float64(p['bias']), 0), rtol=1e-4, atol=1e-6)
  assert y.shape == (1, 8, 8, 2)
