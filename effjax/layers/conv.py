"""A convolution alone: where BatchNorm stands before it, or after a sum or a concatenation."""
import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block


class Conv(Block):
  """`y = conv(x)`, no bias: `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]` unless padding is
  VALID. Parameter `conv/kernel`.

  Args:
    features, kernel, strides, groups, dilation, others: as in `ConvBN`.

  Raises:
    EffjaxError: channels that groups do not divide.

  >>> import jax, jax.numpy as jnp
  >>> Conv(4, 3, 2).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)))[0].shape
  (1, 4, 4, 4)
  """
  features: int
  kernel: int | tuple[int, int] = 3
  strides: int | tuple[int, int] = 1
  groups: int = 1
  dilation: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin']) -> Float[Array, 'n h2 w2 features']:
    return self.convolve(x, self.features, self.kernel, self.strides, groups=self.groups, dilation=self.dilation)
