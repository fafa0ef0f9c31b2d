"""IGCV3-D against the counts of pytorchcv."""
import pytest

from effjax import models
from effjax.models.igcv3 import IGCV3Net

SMALL = IGCV3Net(5, width=.25, stages=((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2)))


def test_counts():
  assert models.count(models.create('igcv3_d'), 224) == (3_491_688, 312_970_176)


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(SMALL, 32)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL, 32)
