"""SqueezeNet: Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, 2016, arXiv:1602.07360, survey [13]."""
import functools

import flax.linen as nn
import jax.numpy as jnp

from effjax.layers.block import round_channels
from effjax.layers.conv_bias import ConvBias
from effjax.layers.max_pool import max_pool
from effjax.layers.windows import ceil_mode
from effjax.models.network import Network
from effjax.models.variant import Variant

FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))  # squeeze, each expand


class SqueezeNet(Network):
  """A convolution, eight fire modules, a 1x1 convolution to the classes with ReLU, the mean over height and width.

  A fire module is a 1x1 convolution to few channels, and the concatenation of a 1x1 and a 3x3 convolution of them, all
  with ReLU: `fire2` to `fire9`, as the paper numbers them. Pools are of 3 with strides 2, the last window may end
  beyond the image, as in Caffe. No BatchNorm, no dense layer. Dropout .5 before the classifier. Widths are rounded to
  multiples of 8. The defaults are version 1.0. Intermediates: `stage1` to `stage4`, of one size each (before the
  pools), `features`.

  Args:
    stem: channels and kernel of the first convolution, which has strides 2 and no padding.
    pooled: the layers before a pool, of 1 to 9, the first being the first convolution.
    others: as in `Network`.

  >>> from effjax import models
  >>> models.count(SqueezeNet(), 224)
  (1248424, 818924576)
  """
  stem: tuple[int, int] = (96, 7)
  pooled: tuple[int, int, int] = (1, 4, 8)
  stride = 21  # with fewer pixels the last pool has no window: 21 are 8, 4, 2, 1

  def forward(self, x, train):
    """Stem, fire modules and pools, classifier."""
    features, kernel = self.stem
    x = ConvBias(self._rounded(features), kernel, 2, name='stem', **{**self.same, 'padding': 'VALID'})(x, train)
    for i, (squeeze, expand) in enumerate(FIRES, 2):
      if i - 1 in self.pooled:
        x = self.mark(f'stage{self.pooled.index(i - 1) + 1}', x)
        x = max_pool(x, 3, 2, ceil_mode(x.shape, 3, 2))
      x = self._fire(f'fire{i}', squeeze, expand, x, train)
    x = nn.Dropout(.5, deterministic=not train)(self.mark('features', self.mark('stage4', x)))
    return ConvBias(self.num_classes, 1, name='classifier', **self.same)(x, train).mean((1, 2))

  def _fire(self, name, squeeze, expand, x, train):
    conv = lambda part, features, kernel: ConvBias(self._rounded(features), kernel, name=f'{name}_{part}', **self.same)
    x = conv('squeeze', squeeze, 1)(x, train)
    return jnp.concatenate([conv('expand1', expand, 1)(x, train), conv('expand3', expand, 3)(x, train)], -1)

  def _rounded(self, features):
    return round_channels(features * self.width)


VARIANTS = {
    'squeezenet1_0': Variant(SqueezeNet, paper='1.25 M'),
    'squeezenet1_1': Variant(functools.partial(SqueezeNet, stem=(64, 3), pooled=(1, 3, 5)))}
