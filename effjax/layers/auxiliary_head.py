"""A second classifier in the middle of a network, for its gradient while training."""
import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.avg_pool import avg_pool
from effjax.layers.batch_norm import BatchNorm
from effjax.layers.block import Block
from effjax.layers.conv import Conv
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense


class AuxiliaryHead(Block):
  """ReLU, average over 5x5 windows, 1x1 convolution, a convolution over all that is left, dense: features to logits.

  `[n, h, w, c] -> [n, num_classes]`, h and w of at least 5. Parameters under `project`, `whole` and `classifier`.

  Args:
    num_classes: logits.
    strides: of the windows: 3; DARTS has 2 on ImageNet.
    norm: BatchNorm behind the second convolution, too; DARTS has none there on ImageNet.
    others: as in `Block`.

  Source: Zoph, Vasudevan, Shlens, Le, 2018, arXiv:1707.07012, survey [6]; its loss counts 0.4 times.

  >>> import jax, jax.numpy as jnp
  >>> AuxiliaryHead(10).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 4)), False)[0].shape
  (1, 10)
  """
  num_classes: int
  strides: int = 3
  norm: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, 'n classes']:
    x = avg_pool(nn.relu(x), 5, self.strides)
    x = ConvBN(128, 1, activation=nn.relu, name='project', **self.same)(x, train)
    x = Conv(768, x.shape[1:3], name='whole', **{**self.same, 'padding': 'VALID'})(x)
    x = BatchNorm(nn.relu, name='whole_bn', **self.same)(x, train) if self.norm else nn.relu(x)
    return Dense(self.num_classes, name='classifier', **self.same)(x.mean((1, 2)))
