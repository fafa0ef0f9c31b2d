"""IGCV3-D: Sun, Li, Liu, Wang, BMVC 2018, arXiv:1806.00178; the successor of survey [20] and [21]."""
import functools

from effjax.layers.block import round_channels
from effjax.layers.conv_bn import ConvBN
from effjax.layers.igcv3 import IGCV3
from effjax.models.network import Network
from effjax.models.variant import Variant

STAGES = ((1, 16, 1, 1), (6, 24, 4, 2), (6, 32, 6, 2), (6, 64, 8, 2), (6, 96, 6, 1), (6, 160, 6, 2), (6, 320, 1, 1))


class IGCV3Net(Network):
  """MobileNetV2 with `IGCV3` blocks, deeper: stem, seven stages of (expand, features, depth, strides), 1x1, classifier.

  Widths are rounded to multiples of 8; the 1280 channels do not get fewer. Intermediates: `stage1` to `stage7`,
  `features`, `pooled`.

  Args:
    groups: of the 1x1 convolutions.
    stages: rows as above.
    others: as in `Network`.

  >>> import jax, jax.numpy as jnp
  >>> net = IGCV3Net(10, width=.25, stages=((1, 16, 1, 1), (6, 24, 2, 2)))
  >>> jax.eval_shape(lambda key: net.init_with_output(key, jnp.ones((1, 32, 32, 3)), False)[0], jax.random.key(0)).shape
  (1, 10)
  """
  groups: int = 2
  stages: tuple[tuple[int, int, int, int], ...] = STAGES

  def forward(self, x, train):
    """Stem, stages, head."""
    channels = round_channels(32 * self.width)
    x = ConvBN(channels, 3, 2, name='stem', **self.same)(x, train)
    for i, (expand, features, depth, strides) in enumerate(self.stages, 1):
      features = round_channels(features * self.width)
      for j in range(1, depth + 1):
        x = IGCV3(features, expand * channels, strides if j == 1 else 1, self.groups, residual=j > 1,
                  name=f'stage{i}_block{j}', **self.same)(x, train)
        channels = features
      x = self.mark(f'stage{i}', x)
    x = ConvBN(max(1280, round_channels(1280 * self.width)), 1, name='head', **self.same)(x, train)
    return self.classify(self.mark('features', x))


VARIANTS = {'igcv3_d': Variant(functools.partial(IGCV3Net, epsilon=1e-5), paper='3.5 M, 318 M')}
