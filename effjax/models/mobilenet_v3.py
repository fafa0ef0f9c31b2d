"""MobileNetV3: Howard, Sandler, Chu, Chen, et al., ICCV 2019, arXiv:1905.02244."""
import functools

import flax.linen as nn

from effjax.layers.block import round_channels
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense
from effjax.layers.inverted_residual import InvertedResidual
from effjax.models.network import Network
from effjax.models.variant import Variant

STEM = 16
# The paper's tables 1 and 2, a line a stage: kernel, hidden channels, features, squeeze-excite, activation, strides.
LARGE = (
    ((3, 16, 16, 0, 'RE', 1),),
    ((3, 64, 24, 0, 'RE', 2), (3, 72, 24, 0, 'RE', 1)),
    ((5, 72, 40, 1, 'RE', 2), (5, 120, 40, 1, 'RE', 1), (5, 120, 40, 1, 'RE', 1)),
    ((3, 240, 80, 0, 'HS', 2), (3, 200, 80, 0, 'HS', 1), (3, 184, 80, 0, 'HS', 1), (3, 184, 80, 0, 'HS', 1)),
    ((3, 480, 112, 1, 'HS', 1), (3, 672, 112, 1, 'HS', 1)),
    ((5, 672, 160, 1, 'HS', 2), (5, 960, 160, 1, 'HS', 1), (5, 960, 160, 1, 'HS', 1)))
SMALL = (
    ((3, 16, 16, 1, 'RE', 2),),
    ((3, 72, 24, 0, 'RE', 2), (3, 88, 24, 0, 'RE', 1)),
    ((5, 96, 40, 1, 'HS', 2), (5, 240, 40, 1, 'HS', 1), (5, 240, 40, 1, 'HS', 1)),
    ((5, 120, 48, 1, 'HS', 1), (5, 144, 48, 1, 'HS', 1)),
    ((5, 288, 96, 1, 'HS', 2), (5, 576, 96, 1, 'HS', 1), (5, 576, 96, 1, 'HS', 1)))


class MobileNetV3(Network):
  """Stem, inverted residuals with squeeze-excite, 1x1 convolution, mean, and a dense layer before the classifier.

  Widths are rounded to multiples of 8; hidden channels are multiples of the rounded inputs, as in the authors' code;
  stem and `hidden` do not get narrower. Squeeze-excite has a fourth of the hidden channels, ReLU, and a hard sigmoid.
  Intermediates: `stage1` ..., `features`, `pooled`.

  Args:
    stages: blocks as in the tables at the top of this file.
    hidden: channels of the dense layer before the classifier.
    minimal: no squeeze-excite, ReLU and 3x3 kernels throughout: the "minimalistic" networks of the authors' code.
    dropout: rate before the classifier, in training.
    others: as in `Network`.

  >>> from effjax import models
  >>> models.count(MobileNetV3(), 224)
  (5483032, 216589760)
  """
  stages: tuple[tuple[tuple, ...], ...] = LARGE
  hidden: int = 1280
  minimal: bool = False
  dropout: float = .2

  def forward(self, x, train):
    """Stem, stages, head."""
    channels, plain = max(STEM, round_channels(STEM * self.width)), STEM
    x = ConvBN(channels, 3, 2, activation=self._activation(), name='stem', **self.same)(x, train)
    for i, rows in enumerate(self.stages, 1):
      for j, row in enumerate(rows, 1):
        x = self._block(row, channels, plain, f'stage{i}_block{j}')(x, train)
        channels, plain = round_channels(row[2] * self.width), row[2]
      x = self.mark(f'stage{i}', x)
    x = ConvBN(6 * channels, 1, activation=self._activation(), name='head', **self.same)(x, train)
    return self._classified(self.mark('features', x), train)

  def _block(self, row, channels, plain, name):
    """The block of a row after so many channels, and so many before `width`."""
    kernel, hidden, features, squeeze, activation, strides = row
    wide, wanted = round_channels(hidden * channels / plain), round_channels(features * self.width)
    squeeze = round_channels(wide / 4) if squeeze and not self.minimal else 0
    return InvertedResidual(
        wanted, strides, 1, 3 if self.minimal else kernel, self._activation(activation),
        hidden=None if hidden == plain else wide, squeeze=squeeze, gate=nn.hard_sigmoid, squeeze_activation=nn.relu,
        residual=strides == 1 and channels == wanted, name=name, **self.same)

  def _activation(self, name='HS'):
    return nn.relu if self.minimal or name == 'RE' else nn.hard_swish

  def _classified(self, x, train):
    x, hidden = self.mark('pooled', x.mean((1, 2))), max(self.hidden, round_channels(self.hidden * self.width))
    x = Dense(hidden, self._activation(), name='hidden', **self.same)(x)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return Dense(self.num_classes, name='classifier', **self.same)(x)


_small = functools.partial(MobileNetV3, stages=SMALL, hidden=1024)
VARIANTS = {
    'mobilenet_v3_large': Variant(MobileNetV3, paper='5.4 M, 219 M'),
    'mobilenet_v3_large_0.75': Variant(functools.partial(MobileNetV3, width=.75), paper='4.0 M, 155 M'),
    'mobilenet_v3_large_minimal': Variant(functools.partial(MobileNetV3, minimal=True)),
    'mobilenet_v3_small': Variant(_small, paper='2.5 M, 56 M'),
    'mobilenet_v3_small_0.75': Variant(functools.partial(_small, width=.75), paper='2.0 M, 44 M'),
    'mobilenet_v3_small_minimal': Variant(functools.partial(_small, minimal=True))}
