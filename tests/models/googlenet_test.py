"""GoogLeNet against the counts of torchvision and Caffe."""
import jax
import jax.numpy as jnp
import pytest

from effjax import models
from effjax.models.googlenet import BLOCKS, GoogLeNet

COUNTS = {'googlenet': (6_624_904, 1_498_376_192), 'googlenet_bn': (7_005_832, 1_582_671_872),
          'googlenet_paper': (6_998_552, 1_582_671_872)}
WITH_AUXILIARY = {'googlenet': 13_004_888, 'googlenet_paper': 13_378_280}
SMALL = GoogLeNet(5, width=.125)


@pytest.mark.parametrize('name', COUNTS)
def test_counts(name):
  assert models.count(models.create(name), 224) == COUNTS[name]


@pytest.mark.parametrize('name', WITH_AUXILIARY)
def test_counts_with_auxiliary_classifiers_which_inference_does_not_run(name):
  assert models.count(models.create(name, auxiliary=True), 224) == (WITH_AUXILIARY[name], COUNTS[name][1])


def test_channels_of_the_blocks():
  sums = [one + three[1] + five[1] + pool for one, three, five, pool in BLOCKS.values()]
  assert sums == [256, 480, 512, 512, 512, 528, 832, 832, 1024]


def test_intermediates():
  found = jax.eval_shape(lambda: SMALL.init_with_output(jax.random.key(0), jnp.ones((1, 32, 32, 3)), False, mutable=[
    'params', 'batch_stats', 'intermediates'])[1]['intermediates'])
  sizes = {name: leaf.shape[1:] for name, leaf in found.items()}
  assert sizes == {'stage2': (8, 8, 24), 'stage3': (4, 4, 64), 'stage4': (2, 2, 104), 'stage5': (1, 1, 128),
                   'features': (1, 1, 128), 'pooled': (128,)}


def test_auxiliary_classifiers_are_returned_in_training():
  net = SMALL.copy(auxiliary=True)
  variables, images = models.shapes(net, 79)
  keys = {'dropout': jax.random.key(0)}
  apply = lambda train: jax.eval_shape(
    lambda variables, x: net.apply(variables, x, train, rngs=keys, mutable=['batch_stats'])[0], variables, images)
  logits, others = apply(True)
  assert logits.shape == (1, 5) and [out.shape for out in others] == [(1, 5)] * 2
  assert apply(False).shape == (1, 5)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['googlenet', 'googlenet_paper'])
def test_one_step_learns(name, learns):
  loss = lambda out: sum(jnp.mean(jnp.square(each - 1)) for each in (out[0], *out[1]))
  learns(models.create(name, num_classes=5, width=.125, auxiliary=True), 79, loss=loss, batch=4)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['googlenet', 'googlenet_paper'])
def test_from_gates_to_a_file(name, to_file):
  to_file(models.create(name, num_classes=5, width=.125, lrn=False), 32)
