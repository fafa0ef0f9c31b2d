"""The dilated separable convolution of searched cells."""
import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block
from effjax.layers.conv import Conv
from effjax.layers.conv_bn import ConvBN


class DilConv(Block):
  """`y = BatchNorm(pointwise(depthwise(relu(x))))`, the depthwise kernel reading every other entry.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]` unless padding is VALID. Parameters under
  `depthwise` and `pointwise`.

  Args:
    features: output channels. strides: of the depthwise convolution.
    kernel: height and width of the depthwise kernel: 3 spans 5 entries, 5 spans 9.
    others: as in `Block`.

  Source: Liu, Simonyan, Yang, "DARTS", ICLR 2019, arXiv:1806.09055, survey [68].

  >>> import jax, jax.numpy as jnp
  >>> DilConv(4).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 8, 8, 4)
  """
  features: int
  strides: int = 1
  kernel: int = 3

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    channels = x.shape[-1]
    x = Conv(channels, self.kernel, self.strides, groups=channels, dilation=2, name='depthwise',
             **self.same)(nn.relu(x))
    return ConvBN(self.features, 1, activation=None, name='pointwise', **self.same)(x, train)
