"""Networks of interleaved group convolutions against counts made by hand."""
import jax
import jax.numpy as jnp
import pytest

from effjax import models
from effjax.errors import EffjaxError
from effjax.models.igc import IGCResNet, IGCV2Net

SMALL = {'igc_l100m2': (IGCResNet(5, width=.04, depths=(1, 1)), 32),
         'igcv2_cifar': (IGCV2Net(5, width=.25, depths=(1, 1)), 8)}


def test_counts_of_l100m2():
  """Stem, 4 blocks of `L M^2 9 + M L^2` weights in each of 4 stages, classifier, BatchNorm."""
  weights = {l: l * 2**2 * 9 + 2 * l**2 for l in (100, 200, 400, 800)}
  sizes = {100: 56, 200: 28, 400: 14, 800: 7}
  parameters = 49 * 3 * 200 + 4 * sum(weights.values()) + 1601 * 1000 + 2 * (200 + 4 * 2 * sum(weights))
  macs = 112**2 * 49 * 3 * 200 + 4 * sum(sizes[l]**2 * weights[l] for l in weights) + 1600 * 1000
  assert (parameters, macs) == (8_670_800, 1_458_585_600)
  assert models.count(models.create('igc_l100m2'), 224) == (parameters, macs)


def test_counts_of_igcv2():
  """Depthwise and two 1x1 convolutions, of C (9 + K_2 + K_3) weights, six times in each of 3 stages."""
  weights = {64: 64 * (9 + 16), 128: 128 * (9 + 24), 256: 256 * (9 + 32)}
  sizes = {64: 32, 128: 16, 256: 8}
  parameters = 27 * 64 + 6 * sum(weights.values()) + 257 * 10 + 2 * (64 + 6 * (64 + 128 + 256))
  macs = 32**2 * 27 * 64 + 6 * sum(sizes[c]**2 * weights[c] for c in weights) + 256 * 10
  assert models.count(models.create('igcv2_cifar'), 32) == (parameters, macs)


def test_sizes_of_the_stages():
  for padding in ('SAME', 'symmetric'):
    net = IGCResNet(5, width=.04, padding=padding)
    found = jax.eval_shape(lambda net=net: net.init_with_output(
      jax.random.key(0), jnp.ones((1, 64, 96, 3)), False, mutable=['params', 'batch_stats', 'intermediates']))[1]
    sizes = {name: leaf.shape[1:] for name, leaf in found['intermediates'].items()}
    assert sizes == {'stage1': (16, 24, 8), 'stage2': (8, 12, 16), 'stage3': (4, 6, 32),
                     'stage4': (2, 3, 64), 'features': (2, 3, 64), 'pooled': (64,)}


@pytest.mark.slow
@pytest.mark.parametrize('name', SMALL)
def test_one_step_learns(name, learns):
  learns(*SMALL[name])


@pytest.mark.slow
@pytest.mark.parametrize('name', SMALL)
def test_from_gates_to_a_file(name, to_file):
  """Paths from every channel to every other join nearly all channels of a stage: few can go."""
  to_file(*SMALL[name], share=.5)


def test_a_width_that_groups_do_not_divide():
  with pytest.raises(EffjaxError, match='stage1_block1/block1/primary: 3 groups do not divide 10 input'):
    models.shapes(IGCResNet(features=9, group_width=3, depths=(1,)).copy(widths={'stem': 10}), 32)
