"""ShuffleNet: Zhang, Zhou, Lin, Sun, CVPR 2018, arXiv:1707.01083, survey [9]."""
import functools

import flax.linen as nn

from effjax.layers.block import round_channels
from effjax.layers.conv_bn import ConvBN
from effjax.layers.max_pool import max_pool
from effjax.layers.shuffle_unit import ShuffleUnit
from effjax.models.network import Network
from effjax.models.variant import Variant

FEATURES = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # of stage 2 by groups; the next stages have twice as many


class ShuffleNet(Network):
  """3x3 convolution, max pool, three stages of shuffle units, of which the first has strides 2, classifier.

  Channels of the stages are rounded to multiples of four times the groups, those of the stem to multiples of the
  groups. The stems with which the published multiply-accumulates are met have 12, 12, 24, 24 and 48 channels at widths
  .25, .5, 1, 1.5 and 2; pytorchcv's network of width .25 has 6. Intermediates: `stage1` (stem and pool) to `stage4`,
  `features`, `pooled`.

  Args:
    groups: of the 1x1 convolutions: 1, 2, 3, 4 or 8, others if `features` are given.
    depths: units of each stage.
    features: channels of stage 2 before `width`; None: the paper's for these groups.
    stem: channels of the stem before `width`.
    others: as in `Network`.

  >>> import jax, jax.numpy as jnp
  >>> net = ShuffleNet(10, width=.25, depths=(1, 1, 1))
  >>> jax.eval_shape(lambda key: net.init_with_output(key, jnp.ones((1, 32, 32, 3)), False)[0], jax.random.key(0)).shape
  (1, 10)
  """
  groups: int = 3
  depths: tuple[int, ...] = (4, 8, 4)
  features: int | None = None
  stem: int = 24

  def forward(self, x, train):
    """Stem and stages."""
    features = FEATURES[self.groups] if self.features is None else self.features
    x = ConvBN(round_channels(self.stem * self.width, self.groups), 3, 2, activation=nn.relu, name='stem',
               **self.same)(x, train)
    x = self.mark('stage1', max_pool(x, 3, 2, self.pads(3)))
    for i, depth in enumerate(self.depths, 2):
      channels = round_channels(features * 2**(i - 2) * self.width, 4 * self.groups)
      for j in range(1, depth + 1):
        x = ShuffleUnit(channels, self.groups, 2 if j == 1 else 1, reduce_groups=1 if (i, j) == (2, 1) else None,
                        name=f'stage{i}_block{j}', **self.same)(x, train)
      x = self.mark(f'stage{i}', x)
    return self.classify(self.mark('features', x))


def _variant(groups, width, paper, **options):
  return Variant(functools.partial(ShuffleNet, groups=groups, width=width, epsilon=1e-5, **options), paper=paper)


VARIANTS = {
    'shufflenet_g1': _variant(1, 1., '143 M'), 'shufflenet_g2': _variant(2, 1., '140 M'),
    'shufflenet_g3': _variant(3, 1., '137 M'), 'shufflenet_g4': _variant(4, 1., '133 M'),
    'shufflenet_g8': _variant(8, 1., '137 M'), 'shufflenet_g3_x0_25': _variant(3, .25, '13 M', stem=48),
    'shufflenet_g3_x0_5': _variant(3, .5, '38 M'), 'shufflenet_g3_x1_5': _variant(3, 1.5, '292 M', stem=16),
    'shufflenet_g3_x2_0': _variant(3, 2., '524 M')}
