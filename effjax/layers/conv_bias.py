"""Convolution with a bias and an activation."""
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block


class ConvBias(Block):
  """`y = activation(conv(x) + bias)`: networks from before BatchNorm. Parameters `conv/kernel`, `conv/bias`.

  Args:
    features, kernel, strides, groups, activation, dilation, others: as in `ConvBN`.

  Raises:
    EffjaxError: channels that groups do not divide.

  >>> import jax, jax.numpy as jnp
  >>> ConvBias(4, 5, 2).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 4, 4, 4)
  """
  features: int
  kernel: int | tuple[int, int] = 3
  strides: int = 1
  groups: int = 1
  activation: Callable | None = nn.relu
  dilation: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    x = self.convolve(x, self.features, self.kernel, self.strides, groups=self.groups, dilation=self.dilation,
                      bias=True)
    return x if self.activation is None else self.activation(x)
