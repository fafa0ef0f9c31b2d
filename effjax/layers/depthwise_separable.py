"""MobileNet's block: a filter per channel, then a mix of channels."""
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block
from effjax.layers.conv_bn import ConvBN


class DepthwiseSeparable(Block):
  """`y = pointwise(depthwise(x))`, each a `ConvBN` with activation: a rank-one factorisation of a dense kernel.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`. Multiply-accumulates are
  `1 / features + 1 / kernel^2` of the dense convolution's. Parameters under `depthwise` and `pointwise`.

  Args:
    features: output channels.
    strides: of the depthwise convolution.
    kernel: height and width of the depthwise kernel.
    activation, bias: as in `ConvBN`; others: as in `Block`.

  Source: Howard et al., "MobileNets", 2017, arXiv:1704.04861, survey [8].

  >>> import jax, jax.numpy as jnp
  >>> DepthwiseSeparable(4, strides=2).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 4, 4, 4)
  """
  features: int
  strides: int = 1
  kernel: int = 3
  activation: Callable | None = nn.relu6
  bias: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    same, channels = dict(activation=self.activation, bias=self.bias, **self.same), x.shape[-1]
    x = ConvBN(channels, self.kernel, self.strides, groups=channels, name='depthwise', **same)(x, train)
    return ConvBN(self.features, 1, name='pointwise', **same)(x, train)
