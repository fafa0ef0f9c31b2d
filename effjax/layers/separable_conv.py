"""Xception's convolution: a filter per channel, then a mix of channels, nothing between them."""
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block
from effjax.layers.conv import Conv
from effjax.layers.conv_bn import ConvBN


class SeparableConv(Block):
  """`y = activation(BatchNorm(pointwise(depthwise(x))))`: a dense convolution whose kernel has rank one per channel.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`. The kernel of the dense convolution is
  `depthwise[:, :, 0, i] pointwise[0, 0, i, o]`. MobileNet's `DepthwiseSeparable` has BatchNorm and an activation
  between the two, `SepConv` of searched cells is this twice. Parameters under `depthwise` and `pointwise`.

  Args:
    features: output channels.
    strides: of the depthwise convolution.
    kernel: height and width of the depthwise kernel.
    activation: a function, or None.
    others: as in `Block`.

  Source: Chollet, "Xception", CVPR 2017, arXiv:1610.02357, survey [56].

  >>> import jax, jax.numpy as jnp
  >>> SeparableConv(4, 2).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 4, 4, 4)
  """
  features: int
  strides: int = 1
  kernel: int = 3
  activation: Callable | None = None

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    channels = x.shape[-1]
    x = Conv(channels, self.kernel, self.strides, groups=channels, name='depthwise', **self.same)(x)
    return ConvBN(self.features, 1, activation=self.activation, name='pointwise', **self.same)(x, train)
