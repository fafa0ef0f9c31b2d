"""ResNet's block of 1x1, 3x3, 1x1 convolutions, and ResNeXt's, whose 3x3 has groups."""
from jaxtyping import Array, Float

from effjax.layers.residual import Residual

EXPANSION = 4


class Bottleneck(Residual):
  """`y = relu(expand(spatial(reduce(x))) + shortcut(x))`: `ConvBN`s of 1x1, 3x3 and 1x1 to four times the features.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), 4 features]`. Parameters under `reduce`, `spatial`,
  `expand` and `shortcut`. With groups this is the sum over branches of a few channels each, `sum_i T_i(x)`.

  Args:
    features, strides, shortcut, bias, others: as in `Residual`.
    hidden: channels between the convolutions; None: features.
    groups: of the 3x3 convolution, ResNeXt's cardinality.
    reduce_strides: whether the first 1x1 has the strides, as in the paper and Keras, instead of the 3x3, as in
      torchvision ("v1.5").

  Source: He, Zhang, Ren, Sun, CVPR 2016, arXiv:1512.03385, survey [2]; Xie, Girshick, Dollar, Tu, He, "Aggregated
  residual transformations", CVPR 2017, arXiv:1611.05431, survey [19].

  >>> import jax, jax.numpy as jnp
  >>> block = Bottleneck(4, 2, 'project', groups=2)
  >>> block.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 4, 4, 16)
  """
  hidden: int | None = None
  groups: int = 1
  reduce_strides: bool = False

  def branch(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features4']:
    """As of `Residual`."""
    hidden = self.features if self.hidden is None else self.hidden
    first, second = (self.strides, 1) if self.reduce_strides else (1, self.strides)
    x = self.conv(hidden, 1, first, 'reduce')(x, train)
    x = self.conv(hidden, 3, second, 'spatial', groups=self.groups)(x, train)
    return self.conv(EXPANSION * self.features, 1, 1, 'expand', activation=None)(x, train)
