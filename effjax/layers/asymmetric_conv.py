"""A square kernel as a row and a column."""
import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block
from effjax.layers.conv import Conv
from effjax.layers.conv_bn import ConvBN


class AsymmetricConv(Block):
  """`y = BatchNorm(conv_kx1(conv_1xk(relu(x))))`: 2 k weights per pair of channels instead of k^2.

  With `bottleneck`, `conv_1xk` and `conv_kx1` have that many channels, BatchNorm and ReLU behind each, and 1x1
  convolutions `reduce` before and `expand` after them. `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides),
  features]` unless padding is VALID; the row strides over the width, the column over the height.

  Args:
    features: output channels. strides: in both directions. kernel: k.
    bottleneck: channels between; 0 for none.
    others: as in `Block`.

  Source: an operation of NASNet's space, arXiv:1707.07012, survey [6]; with bottleneck as AmoebaNet's authors have it,
  survey [54], without as in DARTS, survey [68].

  >>> import jax, jax.numpy as jnp
  >>> AsymmetricConv(4, 2).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 4, 4, 4)
  """
  features: int
  strides: int = 1
  kernel: int = 7
  bottleneck: int = 0

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    row, column = dict(kernel=(1, self.kernel), strides=(1, self.strides)), dict(kernel=(self.kernel, 1),
                                                                                 strides=(self.strides, 1))
    x, linear = nn.relu(x), dict(activation=None, **self.same)
    if not self.bottleneck:
      x = Conv(self.features, name='row', **row, **self.same)(x)
      return ConvBN(self.features, name='column', **column, **linear)(x, train)
    active = dict(activation=nn.relu, **self.same)
    x = ConvBN(self.bottleneck, 1, name='reduce', **active)(x, train)
    x = ConvBN(self.bottleneck, name='row', **row, **active)(x, train)
    x = ConvBN(self.bottleneck, name='column', **column, **active)(x, train)
    return ConvBN(self.features, 1, name='expand', **linear)(x, train)
