"""ShuffleNet against the counts of pytorchcv and the authors."""
import jax
import jax.numpy as jnp
import pytest

from effjax import models
from effjax.errors import EffjaxError
from effjax.models.shufflenet import VARIANTS, ShuffleNet

COUNTS = {'shufflenet_g1': (1_531_936, 143_078_976), 'shufflenet_g2': (1_733_848, 140_836_512),
          'shufflenet_g3': (1_865_728, 137_460_672), 'shufflenet_g4': (1_968_344, 134_339_776),
          'shufflenet_g8': (2_434_768, 138_365_952), 'shufflenet_g3_x0_5': (718_324, 37_589_856),
          'shufflenet_g3_x1_5': (3_442_168, 292_443_552), 'shufflenet_g3_x2_0': (5_450_776, 524_045_184)}
QUICK = ('shufflenet_g1', 'shufflenet_g3', 'shufflenet_g3_x0_5')  # the others differ in numbers alone
STEMS_AT_A_QUARTER = {24: (305_902, 11_009_808), 96: (306_568, 17_882_352)}  # 6 and 24 channels
SMALL = ShuffleNet(5, width=.25, groups=2, depths=(2, 1, 1))


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in COUNTS])
def test_counts(name):
  assert models.count(VARIANTS[name].make(), 224) == COUNTS[name]


@pytest.mark.parametrize('stem', STEMS_AT_A_QUARTER)
def test_counts_at_a_quarter_of_the_width(stem):
  assert models.count(ShuffleNet(width=.25, stem=stem), 224) == STEMS_AT_A_QUARTER[stem]


def test_the_published_multiply_accumulates():
  for name in ('shufflenet_g1', 'shufflenet_g3_x0_25', 'shufflenet_g3_x0_5', 'shufflenet_g3_x1_5', 'shufflenet_g3_x2_0'):
    assert f'{round(models.count(VARIANTS[name].make(), 224)[1] / 1e6)} M' == VARIANTS[name].paper


def test_groups_that_do_not_divide_the_features():
  with pytest.raises(EffjaxError, match='ConvBN stage2_block1/expand: 3 groups do not divide 6 input and 8 output'):
    models.shapes(ShuffleNet(features=24).copy(widths={'stage2_block1/expand': 8}), 32)


def test_sizes_of_the_stages():
  for padding in ('SAME', 'symmetric'):
    net = SMALL.copy(padding=padding)
    found = jax.eval_shape(lambda net=net: net.init_with_output(
      jax.random.key(0), jnp.ones((1, 64, 96, 3)), False, mutable=['params', 'batch_stats', 'intermediates']))[1]
    sizes = {name: leaf.shape[1:] for name, leaf in found['intermediates'].items()}
    assert sizes == {'stage1': (16, 24, 6), 'stage2': (8, 12, 48), 'stage3': (4, 6, 104), 'stage4': (2, 3, 200),
                     'features': (2, 3, 200), 'pooled': (200,)}


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(SMALL, 32)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL, 32)
