"""Xception: Chollet, CVPR 2017, arXiv:1610.02357, survey [56]."""
import flax.linen as nn

from effjax.layers.block import round_channels
from effjax.layers.conv_bn import ConvBN
from effjax.layers.max_pool import max_pool
from effjax.layers.separable_conv import SeparableConv
from effjax.models.network import Network
from effjax.models.variant import Variant

STEM, MIDDLE = (32, 64), 728
ENTRY, EXIT = ((128, 128), (256, 256), (728, 728)), (728, 1024)  # separable convolutions before a pool
HEAD = (1536, 2048)


class Xception(Network):
  """Two convolutions without padding, three entry blocks, middle blocks with identity, an exit block, two convolutions.

  All but the stem are `SeparableConv`s. An entry or exit block is `[relu, conv] x 2, pool of 3 / 2` plus a 1x1
  convolution of its input; a middle block is `[relu, conv] x 3` plus its input. Where the input comes from a ReLU,
  there is no second one. Widths are rounded to multiples of 8. Intermediates: `stem`, `entry1` to `entry3`, `middle`,
  `exit`, `features`, `pooled`.

  Args:
    depth: middle blocks.
    others: as in `Network`.

  >>> from effjax import models
  >>> models.count(Xception(10, depth=1), 64)
  (9529610, 183024416)
  """
  depth: int = 8

  def forward(self, x, train):
    """Stem, entry, middle, exit, head."""
    for i, (features, strides) in enumerate(zip(STEM, (2, 1)), 1):
      x = ConvBN(self._rounded(features), 3, strides, activation=nn.relu, name=f'stem{i}',
                 **{**self.same, 'padding': 'VALID'})(x, train)
    self.mark('stem', x)
    for i, features in enumerate(ENTRY, 1):
      x = self._pooled(f'entry{i}', features, x, train, active=i > 1)
    for i in range(1, self.depth + 1):
      x = x + self._convs(f'middle{i}', (MIDDLE,) * 3, x, train)
    x = self._pooled('exit', EXIT, self.mark('middle', x), train)
    for i, features in enumerate(HEAD, 1):
      x = SeparableConv(self._rounded(features), activation=nn.relu, name=f'head{i}', **self.same)(x, train)
    return self.classify(self.mark('features', x))

  def _pooled(self, name, features, x, train, active=True):
    """A block that halves height and width."""
    shortcut = ConvBN(self._rounded(features[-1]), 1, 2, activation=None, name=f'{name}_shortcut', **self.same)
    y = self._convs(name, features, x, train, active)
    y = max_pool(y, 3, 2, self.pads(3))
    return self.mark(name, y + shortcut(x, train))

  def _convs(self, name, features, x, train, active=True):
    for i, each in enumerate(features, 1):
      x = nn.relu(x) if active or i > 1 else x
      x = SeparableConv(self._rounded(each), name=f'{name}_conv{i}', **self.same)(x, train)
    return x

  def _rounded(self, features):
    return round_channels(features * self.width)


VARIANTS = {'xception': Variant(Xception, 299, '22,855,952')}
