"""EfficientNet: Tan, Le, ICML 2019, arXiv:1905.11946; Lite: its authors' form for integer devices, 2020."""
import functools
import math

import flax.linen as nn

from effjax.layers.block import round_channels
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense
from effjax.layers.drop_path import drop_path
from effjax.layers.inverted_residual import InvertedResidual
from effjax.models.network import Network
from effjax.models.variant import Variant

STEM, HEAD = 32, 1280
# Expand, kernel, features, depth, strides.
STAGES = ((1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2), (6, 5, 112, 3, 1), (6, 5, 192, 4, 2),
          (6, 3, 320, 1, 1))


class EfficientNet(Network):
  """Stem, seven stages of inverted residuals with squeeze-excite and swish, 1x1 convolution, classifier.

  Widths are rounded to multiples of 8, depths up. Squeeze-excite has a fourth of the channels that come into its block.
  Intermediates: `stage1` to `stage7`, `features`, `pooled`.

  Args:
    stages: as in the table at the top of this file.
    depth: multiplies the blocks of every stage.
    lite: no squeeze-excite, ReLU6; stem, head, and the depths of the first and the last stage stay.
    dropout: rate before the classifier, in training.
    drop_path: rate at which the branch of a residual block is dropped per example, in training, times the share of
      all blocks that come before it.
    others: as in `Network`.

  >>> from effjax import models
  >>> [models.count(EfficientNet(lite=lite), 224) for lite in (False, True)]
  [(5288548, 385814752), (4652008, 385187552)]
  """
  stages: tuple[tuple[int, ...], ...] = STAGES
  depth: float = 1.
  lite: bool = False
  dropout: float = .2
  drop_path: float = .2

  def forward(self, x, train):
    """Stem, stages, head."""
    active, depths = dict(activation=nn.relu6 if self.lite else nn.swish, **self.same), self._depths()
    channels, head = (STEM, HEAD) if self.lite else (round_channels(c * self.width) for c in (STEM, HEAD))
    x = ConvBN(channels, 3, 2, name='stem', **active)(x, train)
    for i, (expand, kernel, features, _, strides) in enumerate(self.stages, 1):
      features = round_channels(features * self.width)
      for j in range(1, depths[i - 1] + 1):
        y = InvertedResidual(features, strides if j == 1 else 1, expand, kernel, residual=False,
                             hidden=None if expand == 1 else expand * channels,
                             squeeze=0 if self.lite else channels // 4, name=f'stage{i}_block{j}', **active)(x, train)
        done = (sum(depths[:i - 1]) + j - 1) / sum(depths)
        x = x + self._dropped(y, done, train) if j > 1 else y
        channels = features
      x = self.mark(f'stage{i}', x)
    x = ConvBN(head, 1, name='head', **active)(x, train)
    x = self.mark('pooled', self.mark('features', x).mean((1, 2)))
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return Dense(self.num_classes, name='classifier', **self.same)(x)

  def _depths(self):
    kept = (0, len(self.stages) - 1) if self.lite else ()
    return [depth if i in kept else math.ceil(depth * self.depth) for i, (*_, depth, _) in enumerate(self.stages)]

  def _dropped(self, y, done, train):
    return drop_path(self.make_rng('dropout'), y, self.drop_path * done) if train and self.drop_path else y


# Width, depth, size, dropout, parameters and multiply-accumulates of the paper.
SCALES = {
    'b0': (1., 1., 224, .2, '5.3 M, 0.39 G'), 'b1': (1., 1.1, 240, .2, '7.8 M, 0.70 G'),
    'b2': (1.1, 1.2, 260, .3, '9.2 M, 1.0 G'), 'b3': (1.2, 1.4, 300, .3, '12 M, 1.8 G'),
    'b4': (1.4, 1.8, 380, .4, '19 M, 4.2 G'), 'b5': (1.6, 2.2, 456, .4, '30 M, 9.9 G'),
    'b6': (1.8, 2.6, 528, .5, '43 M, 19 G'), 'b7': (2., 3.1, 600, .5, '66 M, 37 G'),
    'lite0': (1., 1., 224, .2, ''), 'lite1': (1., 1.1, 240, .2, ''), 'lite2': (1.1, 1.2, 260, .3, ''),
    'lite3': (1.2, 1.4, 280, .3, ''), 'lite4': (1.4, 1.8, 300, .3, '')}


def _variant(name):
  width, depth, size, dropout, paper = SCALES[name]
  options = dict(width=width, depth=depth, lite=name.startswith('lite'), dropout=dropout)
  return Variant(functools.partial(EfficientNet, **options), size, paper)


VARIANTS = {f'efficientnet_{name}': _variant(name) for name in SCALES}
