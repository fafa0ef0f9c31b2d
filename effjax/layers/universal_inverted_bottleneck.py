"""MobileNetV4's block: an inverted bottleneck with up to two depthwise convolutions, each of them optional."""
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.block import Block
from effjax.layers.conv_bn import ConvBN


class UniversalInvertedBottleneck(Block):
  """`y = [x +] project(middle(expand(start(x))))`; `start` and `project` have no activation.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`. With `middle` alone it is MobileNetV2's
  inverted residual, with `start` alone it has ConvNeXt's order, with both it is the paper's ExtraDW, with none a
  feed-forward network of 1x1 convolutions. Parameters under `start`, `expand`, `middle`, `project`, all `ConvBN`s.

  Args:
    features: output channels.
    hidden: channels between `expand` and `project`.
    start, middle: kernels of the depthwise convolutions; 0 for none.
    strides: of `middle`, or of `start` where there is no `middle`.
    residual: whether x is added; needs strides 1 and as many channels of x.
    activation: as in `ConvBN`; others: as in `Block`.

  Raises:
    EffjaxError: strides, and no depthwise convolution that could have them.

  Source: Qin et al., "MobileNetV4", ECCV 2024, arXiv:2404.10518.

  >>> import jax, jax.numpy as jnp
  >>> block = UniversalInvertedBottleneck(6, 8, start=3, middle=5, strides=2)
  >>> block.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 4)), False)[0].shape
  (1, 4, 4, 6)
  """
  features: int
  hidden: int
  start: int = 0
  middle: int = 3
  strides: int = 1
  residual: bool = False
  activation: Callable | None = nn.relu

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    if self.strides > 1 and not (self.start or self.middle):
      raise EffjaxError(f'UniversalInvertedBottleneck {"/".join(self.path) or "(top)"}: strides {self.strides} without '
                        'a depthwise convolution: give start= or middle=')
    y = x
    if self.start:
      y = self._depthwise('start', self.start, 1 if self.middle else self.strides, None, y, train)
    y = ConvBN(self.hidden, 1, activation=self.activation, name='expand', **self.same)(y, train)
    if self.middle:
      y = self._depthwise('middle', self.middle, self.strides, self.activation, y, train)
    y = ConvBN(self.features, 1, activation=None, name='project', **self.same)(y, train)
    return x + y if self.residual else y

  def _depthwise(self, name, kernel, strides, activation, x, train):
    channels = x.shape[-1]
    return ConvBN(channels, kernel, strides, channels, activation, name=name, **self.same)(x, train)
