"""FBNet's block: an inverted residual, whose 1x1 convolutions may be grouped."""
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block
from effjax.layers.channel_shuffle import channel_shuffle
from effjax.layers.conv_bn import ConvBN


class FBNetBlock(Block):
  """`y = [x +] project(depthwise(shuffle(expand(x))))`; no activation after `project`, x is added where it fits.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`. Unlike in `InvertedResidual` there always is
  an `expand`, also to as many channels. Parameters under `expand`, `depthwise`, `project`, in all
  `e cin (cin / g + k^2 + features / g + 4) + 2 features`.

  Args:
    features: output channels.
    strides: of the depthwise convolution.
    expand: e, hidden channels per input channel.
    kernel: k, height and width of the depthwise kernel.
    groups: g, of both 1x1 convolutions; with more than one, channels are shuffled between the first and the depthwise.
    activation: as in `ConvBN`.
    others: as in `Block`.

  Raises:
    EffjaxError: channels that groups do not divide.

  Source: Wu et al., "FBNet", CVPR 2019, arXiv:1812.03443, figure 3; the shuffle of ShuffleNet, survey [9].

  >>> import jax, jax.numpy as jnp
  >>> block = FBNetBlock(4, strides=2, groups=2)
  >>> block.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 4)), False)[0].shape
  (1, 4, 4, 4)
  """
  features: int
  strides: int = 1
  expand: int = 1
  kernel: int = 3
  groups: int = 1
  activation: Callable | None = nn.relu

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    active, hidden = dict(activation=self.activation, **self.same), self.expand * x.shape[-1]
    y = channel_shuffle(ConvBN(hidden, 1, groups=self.groups, name='expand', **active)(x, train), self.groups)
    y = ConvBN(hidden, self.kernel, self.strides, groups=hidden, name='depthwise', **active)(y, train)
    y = ConvBN(self.features, 1, groups=self.groups, activation=None, name='project', **self.same)(y, train)
    return x + y if x.shape == y.shape else y
