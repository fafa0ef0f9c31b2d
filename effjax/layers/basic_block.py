"""ResNet's block of two 3x3 convolutions."""
from jaxtyping import Array, Float

from effjax.layers.residual import Residual


class BasicBlock(Residual):
  """`y = relu(conv2(conv1(x)) + shortcut(x))`, 3x3 `ConvBN`s of which the first has the strides and ReLU.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`. Parameters under `conv1`, `conv2` and
  `shortcut`.

  Args:
    features, strides, shortcut, bias, others: as in `Residual`.

  Source: He, Zhang, Ren, Sun, CVPR 2016, arXiv:1512.03385, survey [2].

  >>> import jax, jax.numpy as jnp
  >>> block = BasicBlock(4, 2, 'project')
  >>> block.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 4, 4, 4)
  """

  def branch(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    """As of `Residual`."""
    x = self.conv(self.features, 3, self.strides, 'conv1')(x, train)
    return self.conv(self.features, 3, 1, 'conv2', activation=None)(x, train)
