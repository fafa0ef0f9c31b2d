"""MnasNet against the counts of torchvision and timm."""
import jax
import jax.numpy as jnp
import pytest

from effjax import models
from effjax.models.mnasnet import A1, VARIANTS, MnasNet

COUNTS = {'mnasnet_a1': (3_887_038, 311_579_072), 'mnasnet_b1': (4_383_312, 314_415_872),
          'mnasnet_b1_0.5': (2_218_512, 104_455_968), 'mnasnet_b1_0.75': (3_170_208, 215_493_104),
          'mnasnet_b1_1.4': (7_115_728, 588_799_408)}
QUICK = ('mnasnet_a1', 'mnasnet_b1')  # the others differ in numbers alone
SMALL = MnasNet(5, width=.25, stages=(A1[0], A1[2], A1[4]))


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in COUNTS])
def test_counts(name):
  assert models.count(VARIANTS[name].make(), 224) == COUNTS[name]


@pytest.mark.parametrize('padding', ['SAME', 'symmetric'])
def test_intermediates(padding):
  net, x = SMALL.copy(padding=padding), jnp.ones((1, 32, 32, 3))
  kinds = ['params', 'batch_stats', 'intermediates']
  found = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), x, False, mutable=kinds))[1]['intermediates']
  sizes = {name: leaf.shape[1:] for name, leaf in found.items()}
  assert sizes == {'stage1': (16, 16, 8), 'stage2': (8, 8, 16), 'stage3': (8, 8, 32), 'features': (8, 8, 1280),
                   'pooled': (1280,)}


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(SMALL.copy(width=.5), 32)  # with two channels, ReLU of a squeeze-excite may be zero for a whole batch


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL, 32)
