"""ResNeXt: Xie, Girshick, Dollar, Tu, He, CVPR 2017, arXiv:1611.05431, survey [19]."""
import functools

from effjax.models.resnet import DEPTHS, CifarResNet, ResNet
from effjax.models.variant import Variant

# Bottlenecks of ResNet whose 3x3 has groups; "32x4d" is 32 groups of 4 channels in the first stage.
_50 = functools.partial(ResNet, depths=DEPTHS[50])
_101 = functools.partial(ResNet, depths=DEPTHS[101])
_29 = functools.partial(CifarResNet, features=(64, 128, 256), bottleneck=True, shortcut='project')


def _variant(make, groups, group_width, size=224, paper=''):
  return Variant(functools.partial(make, groups=groups, group_width=group_width), size, paper)


VARIANTS = {
    'resnext50_32x4d': _variant(_50, 32, 4, paper='25.0 M, 4.2 G'),
    'resnext101_32x4d': _variant(_101, 32, 4, paper='8.0 G'),
    'resnext101_64x4d': _variant(_101, 64, 4, paper='15.6 G'),
    'resnext101_32x8d': _variant(_101, 32, 8),
    'resnext29_32x4d_cifar': _variant(_29, 32, 4, 32),
    'resnext29_16x64d_cifar': _variant(_29, 16, 64, 32, '68.1 M')}
