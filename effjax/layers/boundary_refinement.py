"""The global convolutional network's residual for the borders of what was segmented."""
import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block
from effjax.layers.conv_bias import ConvBias


class BoundaryRefinement(Block):
  """`y = x + project(relu(expand(x)))`, 3x3 convolutions with biases that keep the channels, of scores: `[n, h, w, c]`.

  Parameters under `expand` and `project`.

  Args:
    others: as in `Block`.

  Source: Peng, Zhang, Yu, Luo, Sun, "Large kernel matters", CVPR 2017, arXiv:1703.02719, survey [17].

  >>> import jax, jax.numpy as jnp
  >>> BoundaryRefinement().init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 21)))[0].shape
  (1, 8, 8, 21)
  """

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h w c']:
    y = ConvBias(x.shape[-1], name='expand', **self.same)(x, False)
    return x + ConvBias(x.shape[-1], activation=None, name='project', **self.same)(y, False)
