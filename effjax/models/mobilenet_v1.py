"""MobileNet: Howard et al., 2017, arXiv:1704.04861, survey [8]."""
import functools

from effjax.layers.block import round_channels
from effjax.layers.conv_bn import ConvBN
from effjax.layers.depthwise_separable import DepthwiseSeparable
from effjax.models.network import Network
from effjax.models.variant import Variant

FEATURES = (64, 128, 256, 512, 1024)


class MobileNetV1(Network):
  """3x3 convolution of strides 2, thirteen depthwise separable convolutions, classifier.

  ReLU6 as in the authors' code, where the paper says ReLU. The last block has strides 1: the 2 in the paper's table
  would leave no 7x7. Widths are rounded to multiples of 8. Intermediates: `stage1` to `stage5`, `features`, `pooled`.

  Args:
    depths: blocks of each stage; the first one has strides 2 but in stage 1.
    dense: 3x3 convolutions instead of separable ones, the paper's twin.
    others: as in `Network`.

  >>> from effjax import models
  >>> [models.count(MobileNetV1(dense=dense), 224) for dense in (False, True)]
  [(4231976, 568740352), (29294088, 4867293184)]
  """
  depths: tuple[int, ...] = (1, 2, 2, 6, 2)
  dense: bool = False

  def forward(self, x, train):
    """Stem and stages."""
    x = ConvBN(round_channels(32 * self.width), 3, 2, name='stem', **self.same)(x, train)
    block = ConvBN if self.dense else DepthwiseSeparable
    for i, (features, depth) in enumerate(zip(FEATURES, self.depths), 1):
      for j in range(1, depth + 1):
        x = block(round_channels(features * self.width), strides=2 if i > 1 and j == 1 else 1,
                  name=f'stage{i}_block{j}', **self.same)(x, train)
      x = self.mark(f'stage{i}', x)
    return self.classify(self.mark('features', x))


VARIANTS = {
    'mobilenet_v1': Variant(MobileNetV1, paper='4.2 M, 569 M'),
    'mobilenet_v1_0.75': Variant(functools.partial(MobileNetV1, width=.75), paper='2.6 M, 325 M'),
    'mobilenet_v1_0.5': Variant(functools.partial(MobileNetV1, width=.5), paper='1.3 M, 149 M'),
    'mobilenet_v1_0.25': Variant(functools.partial(MobileNetV1, width=.25), paper='0.5 M, 41 M'),
    'mobilenet_v1_dense': Variant(functools.partial(MobileNetV1, dense=True), paper='29.3 M, 4866 M')}
