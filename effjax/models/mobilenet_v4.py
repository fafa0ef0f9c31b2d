"""MobileNetV4: Qin et al., ECCV 2024, arXiv:2404.10518."""
from typing import NamedTuple

import flax.linen as nn

from effjax.layers.block import round_channels
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense
from effjax.layers.universal_inverted_bottleneck import UniversalInvertedBottleneck
from effjax.models.network import Network
from effjax.models.variant import Variant

STEM, HEAD = 32, 1280


class Conv(NamedTuple):
  """A row of the table that is a convolution."""
  kernel: int
  strides: int
  features: int


class UIB(NamedTuple):
  """A row of the table that is a `UniversalInvertedBottleneck`: its kernels, 0 for none."""
  start: int
  middle: int
  strides: int
  expand: int
  features: int


CONV_SMALL = (
    (Conv(3, 2, 32), Conv(1, 1, 32)),
    (Conv(3, 2, 96), Conv(1, 1, 64)),
    (UIB(5, 5, 2, 3, 96), *4 * (UIB(0, 3, 1, 2, 96),), UIB(3, 0, 1, 4, 96)),
    (UIB(3, 3, 2, 6, 128), UIB(5, 5, 1, 4, 128), UIB(0, 5, 1, 4, 128), UIB(0, 5, 1, 3, 128),
     *2 * (UIB(0, 3, 1, 4, 128),)),
    (Conv(1, 1, 960),))


class MobileNetV4(Network):
  """Convolutions, universal inverted bottlenecks, mean, and a 1x1 convolution with BatchNorm before the classifier.

  Widths are rounded to multiples of 8; stem and the 1280 channels of `head` do not get fewer. Intermediates: `stage1`
  to `stage5`, `features`, `pooled`.

  Args:
    stages: as in the table at the top of this file.
    dropout: rate before the classifier, in training.
    others: as in `Network`.

  >>> from effjax import models
  >>> models.count(MobileNetV4(), 224)
  (3774024, 186005568)
  """
  stages: tuple[tuple[Conv | UIB, ...], ...] = CONV_SMALL
  dropout: float = .2

  def forward(self, x, train):
    """Stem, stages, head."""
    channels = max(STEM, round_channels(STEM * self.width))
    x = ConvBN(channels, 3, 2, activation=nn.relu, name='stem', **self.same)(x, train)
    for i, rows in enumerate(self.stages, 1):
      for j, row in enumerate(rows, 1):
        x = self._block(row, channels, f'stage{i}_block{j}')(x, train)
        channels = round_channels(row.features * self.width)
      x = self.mark(f'stage{i}', x)
    x = self.mark('pooled', self.mark('features', x).mean((1, 2), keepdims=True))
    head = max(HEAD, round_channels(HEAD * self.width))
    x = ConvBN(head, 1, activation=nn.relu, name='head', **self.same)(x, train)
    x = nn.Dropout(self.dropout, deterministic=not train)(x.reshape(x.shape[0], -1))
    return Dense(self.num_classes, name='classifier', **self.same)(x)

  def _block(self, row, channels, name):
    """The block of a row after so many channels."""
    features = round_channels(row.features * self.width)
    if isinstance(row, Conv):
      return ConvBN(features, row.kernel, row.strides, activation=nn.relu, name=name, **self.same)
    hidden, residual = round_channels(float(channels * row.expand)), row.strides == 1 and channels == features
    return UniversalInvertedBottleneck(features, hidden, row.start, row.middle, row.strides, residual, name=name,
                                       **self.same)


VARIANTS = {'mobilenet_v4_conv_small': Variant(MobileNetV4, paper='3.8 M, 0.2 G')}
