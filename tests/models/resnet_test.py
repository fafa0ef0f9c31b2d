"""ResNet against the counts of torchvision, Keras, pytorchcv and the papers on pruning."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import models
from effjax.models.resnet import VARIANTS, CifarResNet, ResNet

COUNTS = {
    'resnet18': (11_689_512, 1_814_073_344), 'resnet34': (21_797_672, 3_663_761_408),
    'resnet50': (25_557_032, 4_089_184_256), 'resnet50_v1': (25_557_032, 3_857_973_248),
    'resnet101': (44_549_160, 7_801_405_440), 'resnet101_v1': (44_549_160, 7_570_194_432),
    'resnet152': (60_192_808, 11_513_626_624), 'resnet152_v1': (60_192_808, 11_282_415_616),
    'resnet20_cifar': (269_722, 40_551_040), 'resnet32_cifar': (464_154, 68_862_592),
    'resnet44_cifar': (658_586, 97_174_144), 'resnet56_cifar': (853_018, 125_485_696),
    'resnet110_cifar': (1_727_962, 252_887_680), 'resnet8_mlperf_tiny': (78_666 - 2 * 240, 12_501_632)}
OF_KERAS = {'resnet50_v1': 25_583_592, 'resnet101_v1': 44_601_832, 'resnet152_v1': 60_268_520}
OPTION_B = {'resnet20_cifar': (272_474, 40_813_184), 'resnet56_cifar': (855_770, 125_747_840),
            'resnet110_cifar': (1_730_714, 253_149_824)}
# Of Li et al., survey [24]: the channels that are left in the first convolutions of stages 1 to 3, and which layers keep
# all of theirs, the first convolution of block n being layer 2 n.
PRUNED = {'56-A': ((14, 29, 58), (16, 20, 38, 54), (786_038, 114_131_584)),
          '56-B': ((6, 22, 58), (16, 18, 20, 34, 38, 54), (743_790, 91_423_360)),
          '56-B, all': ((6, 22, 58), (), (715_750, 82_170_496)),
          '110-A': ((8, 32, 64), (36,), (1_688_522, 212_779_648)),
          '110-B': ((8, 19, 45), (36, 38, 74), (1_188_042, 156_377_728))}
SMALL = ResNet(5, width=.125, depths=(1, 2, 1, 1), features=(64, 64, 64, 64))
SMALL_CIFAR = CifarResNet(5, width=.5, depths=(1, 1, 1))


def names(counts):
  """Those of deep networks take seconds to trace."""
  return [pytest.param(name, marks=[pytest.mark.slow] if name[6:9] in ('101', '152', '110') else []) for name in counts]


def count(name, **options):
  return models.count(models.create(name, **options), VARIANTS[name].size)


@pytest.mark.parametrize('name', names(COUNTS))
def test_counts(name):
  assert count(name) == COUNTS[name]


@pytest.mark.parametrize('name', names(OF_KERAS))
def test_keras_has_biases(name):
  assert count(name, bias=True)[0] == OF_KERAS[name]


@pytest.mark.parametrize('name', names(OPTION_B))
def test_counts_of_shortcuts_with_a_projection(name):
  assert count(name, shortcut='project') == OPTION_B[name]


@pytest.mark.parametrize(('share', 'expected'), [(.7, (16_945_246, 2_440_026_340)), (.5, (12_381_864, 1_706_426_368)),
                                                 (.3, (8_665_318, 1_097_492_539))])
def test_counts_of_resnet50_with_fewer_channels_within_its_blocks(share, expected):
  widths = {f'stage{i}_block{j}/{name}': int(share * features)
            for i, (features, depth) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3)), 1)
            for j in range(1, depth + 1) for name in ('reduce', 'spatial')}
  assert count('resnet50_v1', widths=widths) == expected


def test_count_of_a_wide_network():
  """torchvision's wide_resnet50_2 has 68,883,240 parameters: the 3x3 have twice the channels."""
  assert count('resnet50', group_width=128)[0] == 68_883_240


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] * name.startswith('110')) for name in PRUNED])
def test_counts_of_pruned_networks(name):
  left, skipped, expected = PRUNED[name]
  depth = int(name.split('-')[0])
  blocks = [(i, j) for i in (1, 2, 3) for j in range(1, (depth - 2) // 6 + 1)]
  widths = {f'stage{i}_block{j}/conv1': left[i - 1] for n, (i, j) in enumerate(blocks, 1) if 2 * n not in skipped}
  assert count(f'resnet{depth}_cifar', widths=widths) == expected


@pytest.mark.parametrize('net', [SMALL, SMALL.copy(bottleneck=False), SMALL_CIFAR.copy(shortcut='project')],
                         ids=['bottleneck', 'basic', 'cifar'])
def test_without_branches_only_the_shortcuts_are_left(net, variables_of):
  """Where the last BatchNorm of all branches is zero, no other layer of a branch matters."""
  variables, x = variables_of(net, 32)
  last = 'expand' if net.bottleneck else 'conv2'
  path = lambda params: {name: {**block, last: jax.tree.map(jnp.zeros_like, block[last])} if 'block' in name else block
                         for name, block in params.items()}
  other = lambda params: {name: {inner: jax.tree.map(lambda w: w + 1., layer) if inner not in (last, 'shortcut') else layer
                                 for inner, layer in block.items()} if 'block' in name else block
                          for name, block in params.items()}
  zeroed = path(variables['params'])
  apply = jax.jit(lambda params: net.apply({**variables, 'params': params}, x, False))
  assert np.isfinite(apply(zeroed)).all() and np.ptp(apply(zeroed)) > 0
  np.testing.assert_array_equal(apply(other(zeroed)), apply(zeroed))
  assert (apply(other(variables['params'])) != apply(variables['params'])).any()


@pytest.mark.parametrize('padding', ['SAME', 'symmetric'])
def test_intermediates(padding):
  net = SMALL.copy(padding=padding)
  found = jax.eval_shape(lambda: net.init_with_output(
    jax.random.key(0), jnp.ones((1, 33, 34, 3)), False, mutable=['params', 'batch_stats', 'intermediates']))[1]
  sizes = {name: leaf.shape[1:] for name, leaf in found['intermediates'].items()}
  assert sizes == {'stage1': (9, 9, 32), 'stage2': (5, 5, 32), 'stage3': (3, 3, 32), 'stage4': (2, 2, 32),
                   'features': (2, 2, 32), 'pooled': (32,)}


@pytest.mark.slow
@pytest.mark.parametrize('net', [SMALL, SMALL_CIFAR, SMALL_CIFAR.copy(shortcut='conv', bias=False)],
                         ids=['imagenet', 'pad', 'conv'])
def test_one_step_learns(net, learns):
  learns(net, 32)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL_CIFAR, 16)


@pytest.mark.slow
@pytest.mark.parametrize('net', [SMALL, SMALL.copy(reduce_strides=True), SMALL_CIFAR.copy(shortcut='conv', bias=True)],
                         ids=['v1.5', 'v1', 'conv'])
def test_from_gates_to_a_file_with_projections(net, to_file):
  to_file(net, 32)
