"""MobileNetV2 against the counts of Keras, torchvision and timm."""
import pytest

from effjax import models
from effjax.models.mobilenet_v2 import MobileNetV2

COUNTS = {.35: (1_677_128, 59_285_808), .5: (1_968_680, 97_131_840), .75: (2_636_424, 209_069_792),
          1.: (3_504_872, 300_774_272), 1.3: (5_386_792, 509_374_560), 1.4: (6_108_776, 582_195_824)}


@pytest.mark.parametrize('width', COUNTS)
def test_counts(width):
  assert models.count(MobileNetV2(width=width), 224) == COUNTS[width]


def test_one_step_learns(learns):
  learns(MobileNetV2(10, width=.35), 32)


def test_from_gates_to_a_file(to_file):
  to_file(MobileNetV2(10, width=.35), 32)
