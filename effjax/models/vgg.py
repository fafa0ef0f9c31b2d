"""VGG: Simonyan, Zisserman, ICLR 2015, arXiv:1409.1556, survey [1]; for CIFAR: Li et al. [24], Liu et al. [25]."""
import functools

import flax.linen as nn

from effjax.layers.block import round_channels
from effjax.layers.conv_bias import ConvBias
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense
from effjax.layers.max_pool import max_pool
from effjax.models.network import Network
from effjax.models.variant import Variant

FEATURES = (64, 128, 256, 512, 512)
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(Network):
  """Stages of 3x3 convolutions, each before a max pool of 2; then dense layers, with dropout .5 after the hidden ones.

  The first dense layer takes what is left of height and width in the order (height, width, channel), so its parameters
  depend on the image size: 7 x 7 x 512 of 224. Without hidden layers the last pool is a mean instead, as Network
  Slimming has it. Widths are rounded to multiples of 8. Intermediates: `stage1` to `stage5` (before the pools),
  `features`, `pooled`.

  Args:
    depths: convolutions of each stage.
    hidden: outputs of the dense layers before the classifier.
    norm: whether BatchNorm follows each convolution.
    bias: whether convolutions before BatchNorm have a bias, as torchvision's do; without BatchNorm they have.
    others: as in `Network`.

  >>> from effjax import models
  >>> models.count(VGG(), 224)
  (138357544, 15470264320)
  """
  depths: tuple[int, ...] = DEPTHS[16]
  hidden: tuple[int, ...] = (4096, 4096)
  norm: bool = False
  bias: bool = True

  def forward(self, x, train):
    """Stages and pools, then dense layers."""
    for i, (features, depth) in enumerate(zip(FEATURES, self.depths), 1):
      x = max_pool(x, 2) if i > 1 else x
      for j in range(1, depth + 1):
        x = self._conv(round_channels(features * self.width), f'stage{i}_conv{j}', x, train)
      x = self.mark(f'stage{i}', x)
    self.mark('features', x)
    return self._dense(max_pool(x, 2), train) if self.hidden else self.classify(x)

  def _conv(self, features, name, x, train):
    if self.norm:
      return ConvBN(features, activation=nn.relu, bias=self.bias, name=name, **self.same)(x, train)
    return ConvBias(features, name=name, **self.same)(x, train)

  def _dense(self, x, train):
    x = self.mark('pooled', x.reshape(x.shape[0], -1))
    for i, features in enumerate(self.hidden, 1):
      x = Dense(round_channels(features * self.width), nn.relu, name=f'hidden{i}', **self.same)(x)
      x = nn.Dropout(.5, deterministic=not train)(x)
    return Dense(self.num_classes, name='classifier', **self.same)(x)


def _variant(depth, paper, **options):
  return Variant(functools.partial(VGG, depths=DEPTHS[depth], **options), paper=paper)


def _of_cifar(depth, paper, **options):
  make = functools.partial(VGG, num_classes=10, depths=DEPTHS[depth], norm=True, bias=False, **options)
  return Variant(make, 32, paper)


VARIANTS = {
    'vgg11': _variant(11, '133 M'), 'vgg13': _variant(13, '133 M'), 'vgg16': _variant(16, '138 M'),
    'vgg19': _variant(19, '144 M'),
    **{f'vgg{depth}_bn': _variant(depth, '', norm=True) for depth in DEPTHS},
    'vgg16_cifar': _of_cifar(16, '313 M', hidden=(512,)),  # of Li et al.
    'vgg19_cifar': _of_cifar(19, '20.04 M, 398 M', hidden=())}  # of Network Slimming
