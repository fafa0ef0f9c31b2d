"""ConvNeXt: Liu, Mao, Wu, Feichtenhofer, Darrell, Xie, CVPR 2022, arXiv:2201.03545."""
import functools

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block, round_channels
from effjax.layers.conv_bias import ConvBias
from effjax.layers.dense import Dense
from effjax.layers.drop_path import drop_path
from effjax.layers.layer_norm import LayerNorm
from effjax.layers.layer_scale import LayerScale
from effjax.models.network import Network
from effjax.models.variant import Variant

EXPAND = 4


class ConvNeXtBlock(Block):
  """`y = x + scale(project(gelu(hidden(norm(depthwise(x))))))`: a 7x7 filter per channel, then two dense layers.

  Args:
    features: nominal channels of x and y.
    drop_path: rate at which all but x is dropped per example, in training.
    others: as in `Block`.

  >>> import jax, jax.numpy as jnp
  >>> made = lambda key: ConvNeXtBlock(4).init_with_output(key, jnp.ones((1, 8, 8, 4)), False)[0]
  >>> jax.eval_shape(made, jax.random.key(0)).shape
  (1, 8, 8, 4)
  """
  features: int
  drop_path: float = 0.

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, 'n h w c']:
    channels = x.shape[-1]
    y = ConvBias(channels, 7, groups=channels, activation=None, name='depthwise', **self.same)(x, train)
    y = LayerNorm(self.features, name='norm', **self.same)(y)
    y = Dense(EXPAND * self.features, functools.partial(nn.gelu, approximate=False), name='hidden', **self.same)(y)
    y = LayerScale(name='scale', **self.same)(Dense(self.features, name='project', **self.same)(y))
    return x + (drop_path(self.make_rng('dropout'), y, self.drop_path) if train and self.drop_path else y)


class ConvNeXt(Network, kw_only=True):
  """4x4 convolution of strides 4, four stages of blocks, in between LayerNorm and a 2x2 convolution of strides 2.

  timm's total of 4,455,531,264 multiply-accumulates is of the network as it runs; a count of 319,611,648 that goes
  around has each dense layer once per image instead of once per pixel. Widths are rounded to multiples of 8.
  Intermediates: `stage1` to `stage4`, `features`, `pooled`.

  Args:
    depths, features: blocks and channels of each stage.
    drop_path: as in `ConvNeXtBlock`, of the last block; from 0 on linearly in the number of the block.
    epsilon: of LayerNorm; others: as in `Network`.

  >>> from effjax import models
  >>> models.count(ConvNeXt(10, depths=(1, 1, 1, 1), features=(8, 16, 32, 64)), 64)
  (62642, 909696)
  """
  depths: tuple[int, ...] = (3, 3, 9, 3)
  features: tuple[int, ...] = (96, 192, 384, 768)
  drop_path: float = .1
  epsilon: float = 1e-6

  def forward(self, x, train):
    """Stem, stages, head."""
    below, widths = {**self.same, 'padding': 'VALID'}, [round_channels(c * self.width) for c in self.features]
    x = ConvBias(widths[0], 4, 4, activation=None, name='stem', **below)(x, train)
    x = LayerNorm(widths[0], name='stem_norm', **self.same)(x)
    for i, (features, depth) in enumerate(zip(widths, self.depths), 1):
      if i > 1:
        x = LayerNorm(widths[i - 2], name=f'stage{i}_norm', **self.same)(x)
        x = ConvBias(features, 2, 2, activation=None, name=f'stage{i}_down', **below)(x, train)
      for j in range(1, depth + 1):
        x = ConvNeXtBlock(features, self._rate(i, j), name=f'stage{i}_block{j}', **self.same)(x, train)
      x = self.mark(f'stage{i}', x)
    x = self.mark('pooled', self.mark('features', x).mean((1, 2)))
    x = LayerNorm(widths[-1], name='head_norm', **self.same)(x)
    return Dense(self.num_classes, name='classifier', **self.same)(x)

  def _rate(self, stage, block):
    """Of drop_path: 0 in the first block."""
    return self.drop_path * (sum(self.depths[:stage - 1]) + block - 1) / max(1, sum(self.depths) - 1)


_DEEP = (3, 3, 27, 3)
VARIANTS = {
    'convnext_tiny': Variant(ConvNeXt, paper='29 M, 4.5 G'),
    'convnext_small': Variant(functools.partial(ConvNeXt, depths=_DEEP, drop_path=.4), paper='50 M, 8.7 G'),
    'convnext_base': Variant(functools.partial(ConvNeXt, depths=_DEEP, features=(128, 256, 512, 1024), drop_path=.5),
                             paper='89 M, 15.4 G'),
    'convnext_large': Variant(functools.partial(ConvNeXt, depths=_DEEP, features=(192, 384, 768, 1536), drop_path=.5),
                              paper='198 M, 34.4 G')}
