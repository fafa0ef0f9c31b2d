"""MobileNetV4 against the counts of timm."""
import jax
import jax.numpy as jnp
import pytest

from effjax import models
from effjax.models.mobilenet_v4 import CONV_SMALL, UIB, Conv, MobileNetV4

SMALL = MobileNetV4(5, width=.25, stages=(CONV_SMALL[0], CONV_SMALL[2][::5], CONV_SMALL[3][1:3], (Conv(1, 1, 96),)))


def test_counts():
  assert models.count(models.create('mobilenet_v4_conv_small'), 224) == (3_774_024, 186_005_568)


def test_the_small_network_of_these_tests_has_all_kinds_of_blocks():
  kinds = {(row.start > 0, row.middle > 0) for rows in SMALL.stages for row in rows if isinstance(row, UIB)}
  assert kinds == {(True, True), (True, False), (False, True)}


@pytest.mark.parametrize('padding', ['SAME', 'symmetric'])
def test_intermediates(padding):
  net, x = SMALL.copy(padding=padding), jnp.ones((1, 32, 32, 3))
  kinds = ['params', 'batch_stats', 'intermediates']
  found = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), x, False, mutable=kinds))[1]['intermediates']
  sizes = {name: leaf.shape[1:] for name, leaf in found.items()}
  assert sizes == {'stage1': (8, 8, 8), 'stage2': (4, 4, 24), 'stage3': (4, 4, 32), 'stage4': (4, 4, 24), 'features':
                   (4, 4, 24), 'pooled': (1, 1, 24)}


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(SMALL, 32)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL, 32)
