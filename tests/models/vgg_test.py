"""VGG against the counts of torchvision, Keras and the papers on pruning."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import models
from effjax.layers import ConvBias
from effjax.models.vgg import VARIANTS, VGG

MADDS = {11: 7_609_090_048, 13: 11_308_466_176, 16: 15_470_264_320, 19: 19_632_062_464}
PARAMETERS = {11: 132_863_336, 13: 133_047_848, 16: 138_357_544, 19: 143_667_240}
CONVS = {depth: 2 * sum((64, 128, 256, 512, 512)[i] * n for i, n in enumerate(depths)) for depth, depths in
         ((11, (1, 1, 2, 2, 2)), (13, (2, 2, 2, 2, 2)), (16, (2, 2, 3, 3, 3)), (19, (2, 2, 4, 4, 4)))}
SMALL = VGG(5, width=.125, depths=(1, 1, 1, 1, 1))


def count(name, **options):
  return models.count(models.create(name, **options), VARIANTS[name].size)


@pytest.mark.parametrize('depth', MADDS)
def test_counts(depth):
  assert count(f'vgg{depth}') == (PARAMETERS[depth], MADDS[depth])
  assert count(f'vgg{depth}_bn') == (PARAMETERS[depth] + CONVS[depth], MADDS[depth])


def test_counts_of_vgg16_with_batch_norm():
  assert PARAMETERS[16] + CONVS[16] == 138_365_992


def test_counts_for_cifar():
  assert count('vgg16_cifar') == (14_986_698, 313_463_808)
  assert count('vgg16_cifar', bias=True) == (14_990_922, 313_463_808)
  assert count('vgg19_cifar') == (20_035_018, 398_136_320)


def test_counts_of_vgg16_as_li_et_al_pruned_it():
  """Half of the first convolution and of the last six are gone: 206 million multiply-accumulates of 313."""
  half = {f'stage{i}_conv{j}': 256 for i, j in ((4, 1), (4, 2), (4, 3), (5, 1), (5, 2), (5, 3))}
  assert count('vgg16_cifar', widths={'stage1_conv1': 32, **half}) == (5_396_010, 206_279_680)


def test_intermediates():
  found = jax.eval_shape(lambda: SMALL.init_with_output(jax.random.key(0), jnp.ones((1, 32, 32, 3)), False, mutable=[
    'params', 'batch_stats', 'intermediates'])[1]['intermediates'])
  sizes = {name: leaf.shape[1:] for name, leaf in found.items()}
  assert sizes == {'stage1': (32, 32, 8), 'stage2': (16, 16, 16), 'stage3': (8, 8, 32), 'stage4': (4, 4, 64),
                   'stage5': (2, 2, 64), 'features': (2, 2, 64), 'pooled': (64,)}


def test_two_convolutions_of_3_see_as_one_of_5():
  def seen(*kernels):
    def of(x):
      for kernel in kernels:
        net = ConvBias(1, kernel, activation=None)
        x = net.apply(jax.tree.map(jnp.ones_like, net.init(jax.random.key(0), x, False)), x, False)
      return x[0, 5, 5, 0]
    return np.asarray(jax.grad(of)(jnp.ones((1, 11, 11, 1))))[0, ..., 0] != 0

  assert seen(5).sum() == 25
  np.testing.assert_array_equal(seen(3, 3), seen(5))
  np.testing.assert_array_equal(seen(3, 3, 3), seen(7))


@pytest.mark.slow
@pytest.mark.parametrize('options', [{}, {'hidden': (), 'norm': True, 'bias': False}], ids=['plain', 'bn'])
def test_one_step_learns(options, learns):
  learns(SMALL.copy(**options), 32)


@pytest.mark.slow
@pytest.mark.parametrize('options', [{}, {'norm': True}], ids=['plain', 'bn'])
def test_from_gates_to_a_file(options, to_file):
  to_file(SMALL.copy(**options), 32)
