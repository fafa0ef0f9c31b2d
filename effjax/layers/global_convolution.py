"""The global convolutional network's block: a large kernel as sums of products of a column and a row."""
import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block
from effjax.layers.conv import Conv


class GlobalConvolution(Block):
  """`y = row1(column1(x)) + column2(row2(x))`, columns `[kernel, 1]` and rows `[1, kernel]`, nothing between them.

  Away from the borders this is one dense convolution, whose kernel is a sum of two of rank one per pair of inner and
  outer channel: `2 kernel features (cin + features)` weights instead of `kernel^2 cin features`. Where the image ends
  each convolution pads anew. `[n, h, w, cin] -> [n, h, w, features]`. Parameters under `column1`, `row1`, `row2`,
  `column2`, without biases.

  Args:
    features: output channels, and those between row and column; for segmentation the classes.
    kernel: height and width, odd.
    others: as in `Block`.

  Source: Peng, Zhang, Yu, Luo, Sun, "Large kernel matters", CVPR 2017, arXiv:1703.02719, survey [17].

  >>> import jax, jax.numpy as jnp
  >>> GlobalConvolution(21, 7).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)))[0].shape
  (1, 8, 8, 21)
  """
  features: int
  kernel: int = 15

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin']) -> Float[Array, 'n h2 w2 features']:
    column = lambda name: Conv(self.features, (self.kernel, 1), name=name, **self.same)
    row = lambda name: Conv(self.features, (1, self.kernel), name=name, **self.same)
    return row('row1')(column('column1')(x)) + column('column2')(row('row2')(x))
