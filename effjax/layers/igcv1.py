"""Interleaved group convolutions: a spatial one and a pointwise one whose groups cross."""
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block
from effjax.layers.channel_shuffle import channel_shuffle
from effjax.layers.conv import Conv
from effjax.layers.conv_bn import ConvBN


class IGCV1(Block):
  """`y = activation(BatchNorm(P W_s P^T W_p x))`: `C = L M` channels in L groups of M, then in M groups of L.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`. W_p has a spatial kernel of S entries, W_s is
  1x1, and P^T brings channel m of every group together. With `cin == features` there is exactly one path from every
  input channel to every output channel, and `L M^2 S + M L^2` weights; channels are most for a number of weights where
  `L = M S`. A block with more features than cin has `cin / M` groups in W_p. Parameters under `primary`, `secondary`.

  Args:
    features: output channels.
    width: M, which divides cin and features.
    strides, kernel: of the spatial convolution.
    activation: as in `ConvBN`.
    others: as in `Block`.

  Raises:
    EffjaxError: channels that M does not divide.

  Source: Zhang, Qi, Xiao, Wang, "Interleaved group convolutions", ICCV 2017, arXiv:1707.02725, survey [20].

  >>> import jax, jax.numpy as jnp
  >>> IGCV1(12).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 12)), False)[0].shape
  (1, 8, 8, 12)
  """
  features: int
  width: int = 2
  strides: int = 1
  kernel: int = 3
  activation: Callable | None = nn.relu

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    groups = max(1, x.shape[-1] // self.width)
    y = Conv(self.features, self.kernel, self.strides, groups, name='primary', **self.same)(x)
    y = channel_shuffle(y, max(1, y.shape[-1] // self.width))
    y = ConvBN(self.features, 1, groups=self.width, activation=self.activation, name='secondary', **self.same)(y, train)
    return channel_shuffle(y, self.width)
