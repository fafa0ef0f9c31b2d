"""AmoebaNet-A: counts as far as the paper prints them, and the cells of the authors' code."""
import jax
import pytest

from effjax import models
from effjax.models import genotypes
from effjax.models.amoebanet import AmoebaNet

SMALL = dict(num_classes=10, features=8, repeats=1, stem=8)
COUNTS = {'amoebanet_a_mobile': (5_086_930, 554_687_204), 'amoebanet_a_n6_f190': (86_718_797, 23_133_663_507),
          'amoebanet_a_n6_f448': (468_151_184, 103_887_693_968), 'amoebanet_a_cifar': (3_218_266, 509_668_992)}


@pytest.mark.slow
@pytest.mark.parametrize('name', COUNTS)
def test_counts(name):
  """The paper prints 5.1 M and 555 M, 86.7 M and 23.1 B, 469 M (not 468) and 104 B, 3.2 M."""
  assert models.count(models.create(name), models.NETWORKS[name].size) == COUNTS[name]


# model_specs.py of tensorflow/tpu: operations, the states that they read (0 is the previous cell, 1 the one before
# it: the other way round than in a genotype), and which states are used, so that they are no output.
NAMES = {'none': 'skip_connect', 'separable_3x3_2': 'sep_conv_3x3', 'separable_5x5_2': 'sep_conv_5x5',
         'separable_7x7_2': 'sep_conv_7x7', '1x7_7x1': 'bottleneck_7x1_1x7'}
SPECS = {
    'normal': ('avg_pool_3x3 max_pool_3x3 separable_3x3_2 none none avg_pool_3x3 separable_3x3_2 separable_5x5_2 '
               'avg_pool_3x3 separable_3x3_2', [0, 0, 1, 1, 0, 1, 0, 2, 5, 0], [1, 0, 1, 0, 0, 1, 0]),
    'reduce': ('separable_3x3_2 avg_pool_3x3 max_pool_3x3 separable_7x7_2 max_pool_3x3 max_pool_3x3 separable_3x3_2 '
               '1x7_7x1 avg_pool_3x3 separable_7x7_2', [1, 0, 0, 2, 1, 0, 4, 0, 1, 0], [1, 1, 0, 0, 0, 0, 0])}


@pytest.mark.parametrize('cell', SPECS)
def test_genotype(cell):
  operations, states, used = SPECS[cell]
  own = [1, 0, 2, 3, 4, 5, 6]
  expected = tuple((NAMES.get(name, name), own[i]) for name, i in zip(operations.split(), states))
  assert getattr(genotypes.AMOEBANET_A, cell) == expected
  assert getattr(genotypes.AMOEBANET_A, f'{cell}_concat') == tuple(sorted(own[i] for i in range(7) if not used[i]))


def test_four_states_of_a_normal_cell_five_of_a_reducing_one():
  net = AmoebaNet(**SMALL)
  variables, _ = models.shapes(net, 32)
  kernels = jax.tree.map(lambda leaf: leaf.shape, variables['params'])
  assert kernels['cell4']['fit1']['conv']['kernel'] == (1, 1, 4 * 8, 16)
  assert kernels['cell5']['fit1']['conv']['kernel'] == (1, 1, 5 * 16, 16)
  assert kernels['cell4']['edge7']['row']['conv']['kernel'] == (1, 7, 4, 4)  # a quarter of 16


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(AmoebaNet(**SMALL, imagenet=False), 32)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(AmoebaNet(**SMALL | {'features': 4}), 32)
