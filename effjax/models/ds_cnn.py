"""DS-CNN for keyword spotting: Zhang et al., 2017, arXiv:1711.07128, as in MLPerf Tiny, arXiv:2106.07597."""
import flax.linen as nn

from effjax.layers.avg_pool import avg_pool
from effjax.layers.block import round_channels
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense
from effjax.layers.depthwise_separable import DepthwiseSeparable
from effjax.models.network import Network
from effjax.models.variant import Variant

KERNEL = (10, 4)  # time steps, coefficients


class DSCNN(Network):
  """A 10x4 convolution of strides 2 and four depthwise separable ones, of 64 channels all, on a spectrogram.

  `[n, 49 time steps, 10 coefficients, 1] -> [n, 12]`, as MLPerf Tiny's reference in Keras: convolutions have biases
  before BatchNorm, and the pool before the classifier is half as high and wide as the input, so that it does not see
  the last of 25 rows. The counts are by hand from that structure, 23,756 parameters and 1,152 statistics of BatchNorm:
  24,908 of Keras in total. Widths are rounded to multiples of 8. Intermediates: `features`, `pooled`.

  Args:
    depth: separable convolutions.
    others: as in `Network`.

  >>> from effjax import models
  >>> models.count(DSCNN(), (49, 10))
  (23756, 2656768)
  """
  num_classes: int = 12
  channels: int = 1
  depth: int = 4
  stride = 2

  def forward(self, x, train):
    """Stem, blocks, head."""
    size, features = x.shape[1:3], round_channels(64 * self.width)
    same = dict(activation=nn.relu, bias=True, **self.same)
    x = ConvBN(features, KERNEL, 2, name='stem', **same)(x, train)
    x = nn.Dropout(.2, deterministic=not train)(x)
    for i in range(1, self.depth + 1):
      x = DepthwiseSeparable(features, name=f'block{i}', **same)(x, train)
    x = nn.Dropout(.4, deterministic=not train)(self.mark('features', x))
    x = avg_pool(x, (size[0] // 2, size[1] // 2))
    return Dense(self.num_classes, name='classifier', **self.same)(self.mark('pooled', x.reshape(x.shape[0], -1)))


VARIANTS = {'ds_cnn_mlperf_tiny': Variant(DSCNN, (49, 10))}
