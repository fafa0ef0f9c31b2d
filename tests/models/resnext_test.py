"""ResNeXt against the counts of torchvision, timm and pytorchcv."""
import pytest

from effjax import models
from effjax.models.resnext import VARIANTS

COUNTS = {'resnext50_32x4d': (25_028_904, 4_230_479_872), 'resnext101_32x4d': (44_177_704, 7_969_996_800),
          'resnext101_64x4d': (83_455_272, 15_460_270_080), 'resnext101_32x8d': (88_791_336, 16_414_015_488),
          'resnext29_32x4d_cifar': (4_775_754, 774_055_936), 'resnext29_16x64d_cifar': (68_155_210, 10_688_866_304)}
QUICK = ('resnext50_32x4d', 'resnext29_32x4d_cifar')  # the others differ in numbers alone


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in COUNTS])
def test_counts(name):
  assert models.count(models.create(name), VARIANTS[name].size) == COUNTS[name]


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(models.create('resnext29_32x4d_cifar', num_classes=5, width=.25, groups=4, depths=(1, 1, 1)), 16)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(models.create('resnext29_32x4d_cifar', num_classes=5, width=.25, groups=4, group_width=8, depths=(1, 1, 1)), 16)
