"""AlexNet against torchvision's, Caffe's and pytorchcv's counts."""
import jax
import jax.numpy as jnp
import pytest

from effjax import graph, models
from effjax.errors import EffjaxError
from effjax.models.alexnet import AlexNet

COUNTS = {('alexnet', 224): (61_100_840, 714_188_480), ('alexnet_two_tower', 227): (60_965_224, 724_406_816),
          ('alexnet_ungrouped', 227): (62_378_344, 1_135_256_096),
          ('alexnet_ungrouped', 224): (62_378_344, 1_131_457_664)}
SMALL = models.create('alexnet_two_tower', num_classes=5, width=.125)


@pytest.mark.parametrize(('name', 'size'), COUNTS)
def test_counts(name, size):
  assert models.count(models.create(name), size) == COUNTS[name, size]


def test_widths_that_two_towers_do_not_divide():
  with pytest.raises(EffjaxError, match='ConvBias conv2: 2 groups do not divide 16 input and 33 output channels'):
    models.shapes(SMALL.copy(widths={'conv2': 33}), 39)


def test_intermediates():
  found = jax.eval_shape(lambda: SMALL.init_with_output(jax.random.key(0), jnp.ones((1, 39, 39, 3)), False, mutable=[
    'params', 'batch_stats', 'intermediates'])[1]['intermediates'])
  sizes = {name: leaf.shape[1:] for name, leaf in found.items()}
  assert sizes == {'stage1': (8, 8, 16), 'stage2': (4, 4, 32), 'stage3': (2, 2, 48), 'stage4': (2, 2, 48), 'stage5': (2, 2, 32),
                   'features': (1, 1, 32), 'pooled': (512,)}


def test_channels_that_pass_lrn_stay_together(variables_of):
  """Removing one would make others neighbours, which masking does not. (The towers of conv4 and conv5 pair what they read.)"""
  variables, x = variables_of(SMALL, 39)
  found = graph.channels(lambda variables, x: SMALL.apply(variables, x, False), variables, x)
  count = {i: len(set(found.members[f'params/conv{i}/conv/kernel'][-1])) for i in range(1, 6)}
  assert count == {1: 1, 2: 1, 3: 24, 4: 24, 5: 16}


@pytest.mark.slow
@pytest.mark.parametrize('net', [SMALL, AlexNet(5, width=.125)], ids=['2012', '2014'])
def test_one_step_learns(net, learns):
  learns(net, 39)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL.copy(lrn=False), 39)
