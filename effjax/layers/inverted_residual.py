"""MobileNetV2's block: expand, filter each channel, project linearly, add."""
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block
from effjax.layers.conv_bn import ConvBN
from effjax.layers.squeeze_excite import SqueezeExcite


class InvertedResidual(Block):
  """`y = [x +] project(depthwise(expand(x)))`; the projection has no activation.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`. Parameters under `expand` (absent where
  `expand` is 1 and `hidden` None), `depthwise`, `squeeze_excite` (if asked for) and `project`.

  Args:
    features: output channels.
    strides: of the depthwise convolution.
    expand: hidden channels per input channel.
    kernel: height and width of the depthwise kernel.
    activation: as in `ConvBN`.
    hidden: hidden channels, instead of `expand` times those of x.
    squeeze: channels of a `SqueezeExcite` after the depthwise convolution; 0 for none.
    gate, squeeze_activation: of the squeeze-excite; the latter is `activation` where it is None.
    residual: whether x is added; None adds it where strides is 1 and cin is features. A network that may be
      shrunk must say, since then its widths are not those of its plan.
    others: as in `Block`.

  Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2", CVPR 2018, arXiv:1801.04381, survey [10]; with
  squeeze-excite: Tan et al., "MnasNet", CVPR 2019, arXiv:1807.11626, survey [7].

  >>> import jax, jax.numpy as jnp
  >>> block = InvertedResidual(4, strides=2)
  >>> block.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 4, 4, 4)
  """
  features: int
  strides: int = 1
  expand: int | float = 6
  kernel: int = 3
  activation: Callable | None = nn.relu6
  hidden: int | None = None
  squeeze: int = 0
  gate: Callable = nn.sigmoid
  squeeze_activation: Callable | None = None
  residual: bool | None = None

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    active, y = dict(activation=self.activation, **self.same), x
    hidden = round(x.shape[-1] * self.expand) if self.hidden is None else self.hidden
    if self.expand != 1 or self.hidden is not None:
      y = ConvBN(hidden, 1, name='expand', **active)(y, train)
    channels = y.shape[-1]
    y = ConvBN(channels, self.kernel, self.strides, groups=channels, name='depthwise', **active)(y, train)
    if self.squeeze:
      y = SqueezeExcite(self.squeeze, self.squeeze_activation or self.activation, self.gate, name='squeeze_excite',
                        **self.same)(y)
    y = ConvBN(self.features, 1, activation=None, name='project', **self.same)(y, train)
    residual = x.shape == y.shape if self.residual is None else self.residual
    return x + y if residual else y
