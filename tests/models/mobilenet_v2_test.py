"""MobileNetV2 against the counts of Keras, torchvision and timm."""
import pytest

from effjax import models
from effjax.models.mobilenet_v2 import VARIANTS, MobileNetV2

COUNTS = {'mobilenet_v2_0.35': (1_677_128, 59_285_808), 'mobilenet_v2_0.5': (1_968_680, 97_131_840),
          'mobilenet_v2_0.75': (2_636_424, 209_069_792), 'mobilenet_v2': (3_504_872, 300_774_272),
          'mobilenet_v2_1.3': (5_386_792, 509_374_560), 'mobilenet_v2_1.4': (6_108_776, 582_195_824)}


@pytest.mark.parametrize('name', COUNTS)
def test_counts(name):
  assert models.count(VARIANTS[name].make(), 224) == COUNTS[name]


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(MobileNetV2(10, width=.35), 32)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(MobileNetV2(10, width=.35), 32)
