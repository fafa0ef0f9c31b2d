"""MnasNet against the counts of torchvision and timm."""
import pytest

from effjax import models
from effjax.models.mnasnet import A1, VARIANTS, MnasNet

COUNTS = {'mnasnet_a1': (3_887_038, 311_579_072), 'mnasnet_b1': (4_383_312, 314_415_872),
          'mnasnet_b1_0.5': (2_218_512, 104_455_968), 'mnasnet_b1_0.75': (3_170_208, 215_493_104),
          'mnasnet_b1_1.4': (7_115_728, 588_799_408)}
SMALL = MnasNet(5, width=.25, stages=(A1[0], A1[2], A1[4]))


@pytest.mark.parametrize('name', COUNTS)
def test_counts(name):
  assert models.count(VARIANTS[name].make(), 224) == COUNTS[name]


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(SMALL, 32)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL, 32)
