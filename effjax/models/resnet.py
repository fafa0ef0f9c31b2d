"""ResNet: He, Zhang, Ren, Sun, CVPR 2016, arXiv:1512.03385, survey [2]; ResNet-8 of MLPerf Tiny, arXiv:2106.07597."""
import functools

import flax.linen as nn

from effjax.layers.basic_block import BasicBlock
from effjax.layers.block import round_channels
from effjax.layers.bottleneck import EXPANSION, Bottleneck
from effjax.layers.conv_bn import ConvBN
from effjax.layers.max_pool import max_pool
from effjax.models.network import Network
from effjax.models.variant import Variant

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class ResNet(Network):
  """7x7 convolution, max pool, four stages of residual blocks, of which the first has strides 2 but in stage 1.

  Where a block changes shape its shortcut is `shortcut`, elsewhere the identity. Widths are rounded to multiples of 8.
  Intermediates: `stage1` to `stage4`, `features`, `pooled`.

  Args:
    depths: blocks of each stage.
    features: of the blocks of each stage; a `Bottleneck` gives four times as many.
    bottleneck: `Bottleneck` or `BasicBlock`.
    groups: of the 3x3 convolutions of bottlenecks, not rounded to multiples of 8 if there are several.
    group_width: channels of each group where features are 64 (before `width`), in proportion elsewhere.
    shortcut, bias: as in `effjax.layers.residual.Residual`.
    reduce_strides: as in `Bottleneck`: the paper's network ("v1"); by default torchvision's ("v1.5").
    others: as in `Network`.

  >>> from effjax import models
  >>> models.count(ResNet(10, depths=(1, 1, 1, 1)), 64)
  (8036426, 119754752)
  """
  depths: tuple[int, ...] = DEPTHS[50]
  features: tuple[int, ...] = (64, 128, 256, 512)
  bottleneck: bool = True
  groups: int = 1
  group_width: int = 64
  shortcut: str = 'project'
  bias: bool = False
  reduce_strides: bool = False

  def forward(self, x, train):
    """Stem and stages."""
    channels = round_channels(self.features[0] * self.width)
    x = self._stem(channels, x, train)
    for i, (features, depth) in enumerate(zip(self.features, self.depths), 1):
      for j in range(1, depth + 1):
        strides = 2 if i > 1 and j == 1 else 1
        wanted = round_channels(features * self.width) * (EXPANSION if self.bottleneck else 1)
        shortcut = self.shortcut if strides > 1 or channels != wanted else 'identity'
        x = self._block(features, strides, shortcut, f'stage{i}_block{j}')(x, train)
        channels = wanted
      x = self.mark(f'stage{i}', x)
    return self.classify(self.mark('features', x))

  def _stem(self, features, x, train):
    x = ConvBN(features, 7, 2, activation=nn.relu, bias=self.bias, name='stem', **self.same)(x, train)
    return max_pool(x, 3, 2, self.pads(3))

  def _block(self, features, strides, shortcut, name):
    same = dict(bias=self.bias, name=name, **self.same)
    rounded = round_channels(features * self.width)
    if not self.bottleneck:
      return BasicBlock(rounded, strides, shortcut, **same)
    of_group = features * self.width * self.group_width / 64
    hidden = round_channels(of_group) if self.groups == 1 else self.groups * max(1, round(of_group))
    return Bottleneck(rounded, strides, shortcut, hidden=hidden, groups=self.groups,
                      reduce_strides=self.reduce_strides, **same)


class CifarResNet(ResNet):
  """The paper's networks for images of 32: a 3x3 convolution, three stages of basic blocks, depth `6 n + 2`.

  Shortcuts that change shape are the paper's option A, 'pad'. MLPerf Tiny's ResNet-8 has biases and shortcuts 'conv';
  its 78,666 parameters are 78,186 and the statistics of BatchNorm. Intermediates, and others: as of `ResNet`.

  >>> from effjax import models
  >>> models.count(CifarResNet(depths=(1, 1, 1)), 32)
  (75290, 12239488)
  """
  num_classes: int = 10
  depths: tuple[int, ...] = (3, 3, 3)
  features: tuple[int, ...] = (16, 32, 64)
  bottleneck: bool = False
  shortcut: str = 'pad'
  stride = 4

  def _stem(self, features, x, train):
    return ConvBN(features, activation=nn.relu, bias=self.bias, name='stem', **self.same)(x, train)


def _variant(depth, paper, **options):
  return Variant(functools.partial(ResNet, depths=DEPTHS[depth], bottleneck=depth > 34, **options), paper=paper)


def _of_cifar(depth, paper):
  return Variant(functools.partial(CifarResNet, depths=((depth - 2) // 6,) * 3), 32, paper)


VARIANTS = {
    'resnet18': _variant(18, '1.8 G'), 'resnet34': _variant(34, '3.6 G'), 'resnet50': _variant(50, ''),
    'resnet101': _variant(101, ''), 'resnet152': _variant(152, ''),
    'resnet50_v1': _variant(50, '3.8 G', reduce_strides=True),
    'resnet101_v1': _variant(101, '7.6 G', reduce_strides=True),
    'resnet152_v1': _variant(152, '11.3 G', reduce_strides=True),
    'resnet20_cifar': _of_cifar(20, '0.27 M'), 'resnet32_cifar': _of_cifar(32, '0.46 M'),
    'resnet44_cifar': _of_cifar(44, '0.66 M'), 'resnet56_cifar': _of_cifar(56, '0.85 M'),
    'resnet110_cifar': _of_cifar(110, '1.7 M'),
    'resnet8_mlperf_tiny': Variant(functools.partial(CifarResNet, depths=(1, 1, 1), shortcut='conv', bias=True), 32)}
