"""The dilated VGG-16 by the counts of VGG-16 and of the context module."""
import jax
import jax.numpy as jnp
import pytest

from effjax import models, tree
from effjax.errors import EffjaxError
from effjax.models.dilated_vgg import VARIANTS, DilatedVGG
from effjax.models.vgg import VGG

CONTEXT = {'dilated_vgg16_front_end': (0, 0), 'dilated_vgg16': (28_392, 115_605_504),
           'dilated_vgg16_large': (6_803_139, 27_857_313_792)}  # of 21 classes, on 64x64
SMALL = DilatedVGG(12, width=.125, hidden=64)


@pytest.mark.parametrize('name', CONTEXT)
def test_counts(name):
  parameters, macs = CONTEXT[name]
  parameters += 138_357_544 - 4097 * 1000 + 4097 * 21  # VGG-16 with another classifier
  sides = [512, 512, 256, 256, *[128] * 3, *[64] * 6]  # the last stage is not at 32
  channels = [3, 64, 64, 128, 128, *[256] * 3, *[512] * 6]
  macs += sum(9 * cin * cout * side**2 for side, cin, cout in zip(sides, channels, channels[1:]))
  macs += (7 * 7 * 512 * 4096 + 4096**2 + 4096 * 21) * 64**2
  assert models.count(VARIANTS[name].make(), 512) == (parameters, macs)


def test_sizes_and_the_paths_of_vgg():
  out, found = jax.eval_shape(lambda: SMALL.init_with_output(
    jax.random.key(0), jnp.ones((1, 32, 64, 3)), False, mutable=['params', 'intermediates']))
  assert out.shape == found['intermediates']['scores'].shape == (1, 4, 8, 12)
  sizes = [found['intermediates'][f'stage{i}'].shape[1:3] for i in range(1, 6)]
  assert sizes == [(32, 64), (16, 32), (8, 16), (4, 8), (4, 8)]
  of_vgg = tree.leaves(models.shapes(VGG(width=.125), 32)[0]['params'])
  mine = tree.leaves(found['params'])
  stages = [path for path in of_vgg if path.startswith('stage')]
  assert len(stages) == 26
  assert all(mine[path].shape == of_vgg[path].shape for path in stages)


def test_an_unknown_context():
  with pytest.raises(EffjaxError, match=r"DilatedVGG: context 'huge' is unknown: choose one of \('none', 'basic', 'large"):
    models.shapes(SMALL.copy(context='huge'), 16)


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(SMALL, 16)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL, 16)
