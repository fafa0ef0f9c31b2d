"""MobileNetV2's block: expand, filter each channel, project linearly, add."""
from collections.abc import Callable

import flax.linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from effjax.layers.conv_bn import ConvBN


class InvertedResidual(nn.Module):
  """`y = [x +] project(depthwise(expand(x)))`; the projection has no activation.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`; x is added where strides is 1 and cin is
  features. Parameters under `expand` (absent where `expand` is 1), `depthwise` and `project`.

  Args:
    features: output channels.
    strides: of the depthwise convolution.
    expand: hidden channels per input channel.
    kernel: height and width of the depthwise kernel.
    activation, axis_name, dtype: as in `ConvBN`.

  Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2", CVPR 2018, arXiv:1801.04381, survey [10].

  >>> import jax, jax.numpy as jnp
  >>> block = InvertedResidual(4, strides=2)
  >>> block.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 4, 4, 4)
  """
  features: int
  strides: int = 1
  expand: int = 6
  kernel: int = 3
  activation: Callable | None = nn.relu6
  axis_name: str | None = None
  dtype: DTypeLike | None = None

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    same = dict(axis_name=self.axis_name, dtype=self.dtype)
    active = dict(activation=self.activation, **same)
    hidden, y = x.shape[-1] * self.expand, x
    if self.expand != 1:
      y = ConvBN(hidden, 1, name='expand', **active)(y, train)
    y = ConvBN(hidden, self.kernel, self.strides, groups=hidden, name='depthwise', **active)(y, train)
    y = ConvBN(self.features, 1, activation=None, name='project', **same)(y, train)
    return x + y if x.shape == y.shape else y
