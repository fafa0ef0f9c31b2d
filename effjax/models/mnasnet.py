"""MnasNet: Tan, Chen, Pang, Vasudevan, Sandler, Howard, Le, CVPR 2019, arXiv:1807.11626, survey [7]."""
import functools

import flax.linen as nn

from effjax.layers.block import round_channels
from effjax.layers.conv_bn import ConvBN
from effjax.layers.inverted_residual import InvertedResidual
from effjax.models.network import Network
from effjax.models.variant import Variant

# Per stage: expand, kernel, features, depth, strides, and whether there is squeeze-excite.
A1 = ((1, 3, 16, 1, 1, 0), (6, 3, 24, 2, 2, 0), (3, 5, 40, 3, 2, 1), (6, 3, 80, 4, 2, 0), (6, 3, 112, 2, 1, 1),
      (6, 5, 160, 3, 2, 1), (6, 3, 320, 1, 1, 0))
B1 = ((1, 3, 16, 1, 1, 0), (3, 3, 24, 3, 2, 0), (3, 5, 40, 3, 2, 0), (6, 5, 80, 3, 2, 0), (6, 3, 96, 2, 1, 0),
      (6, 5, 192, 4, 2, 0), (6, 3, 320, 1, 1, 0))
HEAD = 1280


class MnasNet(Network):
  """Inverted residuals with ReLU that were found by a search: stem, seven stages, 1x1 to 1280 channels, classifier.

  Widths are rounded to multiples of 8; the 1280 channels stay. Squeeze-excite has a fourth of the channels that come
  into its block. Intermediates: `stage1` to `stage7`, `features`, `pooled`.

  Args:
    stages: as in the tables at the top of this file.
    others: as in `Network`.

  >>> from effjax import models
  >>> [models.count(MnasNet(stages=stages), 224) for stages in (A1, B1)]
  [(3887038, 311579072), (4383312, 314415872)]
  """
  stages: tuple[tuple[int, ...], ...] = A1

  def forward(self, x, train):
    """Stem, stages, head."""
    channels = round_channels(32 * self.width)
    x = ConvBN(channels, 3, 2, activation=nn.relu, name='stem', **self.same)(x, train)
    for i, (expand, kernel, features, depth, strides, squeeze) in enumerate(self.stages, 1):
      features = round_channels(features * self.width)
      for j in range(1, depth + 1):
        x = InvertedResidual(features, strides if j == 1 else 1, expand, kernel, nn.relu,
                             hidden=None if expand == 1 else expand * channels, squeeze=channels // 4 * squeeze,
                             residual=(strides == 1 or j > 1) and channels == features, name=f'stage{i}_block{j}',
                             **self.same)(x, train)
        channels = features
      x = self.mark(f'stage{i}', x)
    x = ConvBN(HEAD, 1, activation=nn.relu, name='head', **self.same)(x, train)
    return self.classify(self.mark('features', x))


_b1 = functools.partial(MnasNet, stages=B1)
VARIANTS = {
    'mnasnet_a1': Variant(MnasNet, paper='3.9 M, 312 M'),
    'mnasnet_b1': Variant(_b1, paper='4.4 M, 315 M'),
    'mnasnet_b1_0.5': Variant(functools.partial(_b1, width=.5)),
    'mnasnet_b1_0.75': Variant(functools.partial(_b1, width=.75)),
    'mnasnet_b1_1.4': Variant(functools.partial(_b1, width=1.4))}
