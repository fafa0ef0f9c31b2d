"""MobileNetV2: Sandler, Howard, Zhu, Zhmoginov, Chen, CVPR 2018, arXiv:1801.04381, survey [10]."""
import functools

from effjax.layers.block import round_channels
from effjax.layers.conv_bn import ConvBN
from effjax.layers.inverted_residual import InvertedResidual
from effjax.models.network import Network
from effjax.models.variant import Variant

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV2(Network):
  """Inverted residuals: stem, seven stages of (expand, features, depth, strides), 1x1 to 1280 channels, classifier.

  Widths are rounded to multiples of 8; the 1280 channels do not get fewer. The network of width 1.4 has 6.11 million
  parameters where the paper prints 6.9. Intermediates: `stage1` ... `stage7`, `features`, `pooled`.

  Args:
    others: as in `Network`.

  >>> import jax, jax.numpy as jnp
  >>> net = MobileNetV2(10, width=.35)
  >>> jax.eval_shape(lambda key: net.init_with_output(key, jnp.ones((1, 32, 32, 3)), False)[0], jax.random.key(0)).shape
  (1, 10)
  """

  def forward(self, x, train):
    """Stem, stages, head."""
    channels = round_channels(32 * self.width)
    x = ConvBN(channels, 3, 2, name='stem', **self.same)(x, train)
    for i, (expand, features, depth, strides) in enumerate(STAGES, 1):
      features = round_channels(features * self.width)
      for j in range(1, depth + 1):
        x = InvertedResidual(features, strides if j == 1 else 1, expand, residual=j > 1,
                             hidden=None if expand == 1 else expand * channels, name=f'stage{i}_block{j}',
                             **self.same)(x, train)
        channels = features
      x = self.mark(f'stage{i}', x)
    x = ConvBN(max(1280, round_channels(1280 * self.width)), 1, name='head', **self.same)(x, train)
    return self.classify(self.mark('features', x))


VARIANTS = {
    'mobilenet_v2': Variant(MobileNetV2, paper='3.4 M, 300 M'),
    'mobilenet_v2_0.35': Variant(functools.partial(MobileNetV2, width=.35)),
    'mobilenet_v2_0.5': Variant(functools.partial(MobileNetV2, width=.5)),
    'mobilenet_v2_0.75': Variant(functools.partial(MobileNetV2, width=.75)),
    'mobilenet_v2_1.3': Variant(functools.partial(MobileNetV2, width=1.3)),
    'mobilenet_v2_1.4': Variant(functools.partial(MobileNetV2, width=1.4), paper='6.9 M, 585 M')}
