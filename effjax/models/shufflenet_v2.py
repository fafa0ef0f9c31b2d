"""ShuffleNetV2: Ma, Zhang, Zheng, Sun, ECCV 2018, arXiv:1807.11164, survey [12]."""
import functools

import flax.linen as nn

from effjax.layers.block import round_channels
from effjax.layers.conv_bn import ConvBN
from effjax.layers.max_pool import max_pool
from effjax.layers.shuffle_unit_v2 import ShuffleUnitV2
from effjax.models.network import Network
from effjax.models.variant import Variant

FEATURES = {.5: (48, 96, 192), 1.: (116, 232, 464), 1.5: (176, 352, 704), 2.: (244, 488, 976)}  # stages 2 to 4


class ShuffleNetV2(Network):
  """3x3 convolution, max pool, three stages of units, of which the first has strides 2, 1x1 convolution, classifier.

  The paper's four networks are no multiples of one: they are `features` and `head`; `width` multiplies these once more,
  rounded to even numbers. Multiply-accumulates are the paper's with `authors` only; the authors' classifiers have no
  bias, `num_classes` parameters less than here. Intermediates: `stage1` (stem and pool) to `stage4`, `features`,
  `pooled`.

  Args:
    features: channels of stages 2 to 4.
    depths: units of each stage.
    stem: channels of the stem.
    head: channels of the last convolution; 0: there is none.
    kernel: of the depthwise convolutions.
    authors: the units of the authors instead of torchvision's, as in `effjax.layers.shuffle_unit_v2.ShuffleUnitV2`.
    others: as in `Network`.

  >>> import jax, jax.numpy as jnp
  >>> net = ShuffleNetV2(10, features=(8, 16, 32), depths=(1, 1, 1), head=64)
  >>> jax.eval_shape(lambda key: net.init_with_output(key, jnp.ones((1, 32, 32, 3)), False)[0], jax.random.key(0)).shape
  (1, 10)
  """
  features: tuple[int, ...] = FEATURES[1.]
  depths: tuple[int, ...] = (4, 8, 4)
  stem: int = 24
  head: int = 1024
  kernel: int = 3
  authors: bool = False

  def forward(self, x, train):
    """Features and classifier."""
    return self.classify(self.maps(x, train)[1])

  def maps(self, x, train):
    """Of stem, stages and head: what the last but one stage gives, a 16th of the size, and the features."""
    x = self._conv(self.stem, 3, 2, 'stem')(x, train)
    x = self.mark('stage1', max_pool(x, 3, 2, self.pads(3)))
    found = [x]
    for i, (features, depth) in enumerate(zip(self.features, self.depths), 2):
      for j in range(1, depth + 1):
        x = ShuffleUnitV2(round_channels(features * self.width, 2), 2 if j == 1 else 1, self.kernel, self.authors,
                          name=f'stage{i}_block{j}', **self.same)(x, train)
      found.append(self.mark(f'stage{i}', x))
    return found[-2], self.mark('features', self._conv(self.head, 1, 1, 'head')(x, train) if self.head else x)

  def _conv(self, features, kernel, strides, name):
    return ConvBN(round_channels(features * self.width, 2), kernel, strides, activation=nn.relu, name=name, **self.same)


def _variant(width, paper, **options):
  return Variant(functools.partial(ShuffleNetV2, features=FEATURES[width], head=2048 if width == 2. else 1024,
                                   epsilon=1e-5, **options), paper=paper)


VARIANTS = {
    'shufflenet_v2_x0_5': _variant(.5, '1.4 M, 41 M'), 'shufflenet_v2_x1_0': _variant(1., '2.3 M, 146 M'),
    'shufflenet_v2_x1_5': _variant(1.5, '3.5 M, 299 M'), 'shufflenet_v2_x2_0': _variant(2., '7.4 M, 591 M')}
