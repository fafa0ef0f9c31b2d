"""IGCV3's block: MobileNetV2's, with grouped pointwise convolutions."""
import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block
from effjax.layers.channel_shuffle import channel_shuffle
from effjax.layers.conv_bn import ConvBN


class IGCV3(Block):
  """`y = [x +] project(depthwise(shuffle(expand(x))))`; only the depthwise convolution has an activation, ReLU6.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`. `expand` and `project` are grouped 1x1
  convolutions. Parameters under `expand`, `depthwise`, `project`.

  Args:
    features: output channels.
    hidden: channels in between.
    strides: of the depthwise convolution.
    groups: of the 1x1 convolutions and of the shuffle.
    residual: whether x is added.
    others: as in `Block`.

  Raises:
    EffjaxError: channels that groups do not divide.

  Source: Sun, Li, Liu, Wang, "IGCV3: interleaved low-rank group convolutions", BMVC 2018, arXiv:1806.00178.

  >>> import jax, jax.numpy as jnp
  >>> IGCV3(4, 24, residual=True).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 4)), False)[0].shape
  (1, 8, 8, 4)
  """
  features: int
  hidden: int
  strides: int = 1
  groups: int = 2
  residual: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    grouped = dict(groups=self.groups, activation=None, **self.same)
    y = channel_shuffle(ConvBN(self.hidden, 1, name='expand', **grouped)(x, train), self.groups)
    y = ConvBN(y.shape[-1], 3, self.strides, y.shape[-1], name='depthwise', **self.same)(y, train)
    y = ConvBN(self.features, 1, name='project', **grouped)(y, train)
    return x + y if self.residual else y
