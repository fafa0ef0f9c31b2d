"""DenseNet: Huang, Liu, van der Maaten, Weinberger, CVPR 2017, arXiv:1608.06993, survey [3]."""
import functools

import flax.linen as nn
import jax.numpy as jnp

from effjax.layers.avg_pool import avg_pool
from effjax.layers.batch_norm import BatchNorm
from effjax.layers.conv import Conv
from effjax.layers.conv_bn import ConvBN
from effjax.layers.max_pool import max_pool
from effjax.models.network import Network
from effjax.models.variant import Variant

DEPTHS = {121: (6, 12, 24, 16), 161: (6, 12, 36, 24), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}


class DenseNet(Network):
  """Blocks of layers whose outputs are concatenated: `x_l = [x_0, H(x_0), ..., H(x_{l-1})]`.

  A layer `H` is BatchNorm, ReLU, a 3x3 convolution to `growth` channels; with `bottleneck` BatchNorm, ReLU, a 1x1
  convolution to four times as many, and BatchNorm and ReLU come first. Between blocks: BatchNorm, ReLU, a 1x1
  convolution to `compression` of the channels, an average over 2x2. The last block ends with BatchNorm and ReLU.
  Widths are rounded. Intermediates: `stage1` ... (the blocks), `features`, `pooled`.

  Args:
    depths: layers of each block.
    growth: channels that a layer adds.
    initial: channels of the 7x7 convolution, which BatchNorm, ReLU and a max pool follow.
    bottleneck, compression: as above; the paper's B and C.
    others: as in `Network`.

  >>> from effjax import models
  >>> models.count(DenseNet(10, depths=(1, 2, 1, 1)), 64)
  (249362, 29453560)
  """
  depths: tuple[int, ...] = DEPTHS[121]
  growth: int = 32
  initial: int = 64
  bottleneck: bool = True
  compression: float = .5

  def forward(self, x, train):
    """Stem, blocks and transitions."""
    channels, growth = self._rounded(self.initial), self._rounded(self.growth)
    x = self._stem(channels, x, train)
    for i, depth in enumerate(self.depths, 1):
      for j in range(1, depth + 1):
        x = jnp.concatenate([x, self._layer(f'stage{i}_layer{j}', growth, x, train)], -1)
      channels += depth * growth
      x = self.mark(f'stage{i}', x)
      if i < len(self.depths):
        channels = int(channels * self.compression)
        x = self._transition(f'transition{i}', channels, x, train)
    return self.classify(self.mark('features', self._active('head_bn', x, train)))

  def _stem(self, features, x, train):
    x = ConvBN(features, 7, 2, activation=nn.relu, name='stem', **self.same)(x, train)
    return max_pool(x, 3, 2, self.pads(3))

  def _layer(self, name, growth, x, train):
    x = self._active(f'{name}_bn', x, train)
    if self.bottleneck:
      x = ConvBN(4 * growth, 1, activation=nn.relu, name=f'{name}_bottleneck', **self.same)(x, train)
    return Conv(growth, 3, name=f'{name}_conv', **self.same)(x)

  def _transition(self, name, features, x, train):
    x = Conv(features, 1, name=f'{name}_conv', **self.same)(self._active(f'{name}_bn', x, train))
    return avg_pool(x, 2)

  def _active(self, name, x, train):
    return BatchNorm(nn.relu, name=name, **self.same)(x, train)

  def _rounded(self, features):
    return max(1, round(features * self.width))


class CifarDenseNet(DenseNet):
  """The paper's networks for images of 32: a 3x3 convolution alone, three blocks.

  Intermediates and others: as of `DenseNet`.

  >>> from effjax import models
  >>> models.count(CifarDenseNet(depths=(1, 1, 1)), 32)
  (12826, 4475400)
  """
  num_classes: int = 10
  depths: tuple[int, ...] = (12, 12, 12)
  growth: int = 12
  initial: int = 16
  bottleneck: bool = False
  compression: float = 1.
  stride = 4

  def _stem(self, features, x, train):
    return Conv(features, name='stem', **self.same)(x)


def _variant(depth, paper='', **options):
  return Variant(functools.partial(DenseNet, depths=DEPTHS[depth], **options), paper=paper)


def _bc(layers, growth, paper):
  make = functools.partial(CifarDenseNet, depths=(layers,) * 3, growth=growth, initial=2 * growth, bottleneck=True,
                           compression=.5)
  return Variant(make, 32, paper)


VARIANTS = {
    'densenet121': _variant(121), 'densenet161': _variant(161, growth=48, initial=96), 'densenet169': _variant(169),
    'densenet201': _variant(201), 'densenet40_k12_cifar': Variant(CifarDenseNet, 32, '1.0 M'),
    'densenet100_k12_bc_cifar': _bc(16, 12, '0.8 M'), 'densenet190_k40_bc_cifar': _bc(31, 40, '25.6 M')}
