"""NASNet-A against the counts of Keras; widths of cells, the two ways of reading past a reduction, scheduled drop path."""
import jax
import numpy as np
import pytest

from effjax import models
from effjax.models.nasnet import NASNet

SMALL = dict(num_classes=10, features=8, repeats=1, stem=8)
# What the first cell on CIFAR makes of the stem's 96 channels to give 32: one 1x1 convolution and BatchNorm for each of
# two averages, an identity and the output. A count of 3,343,402 that is about has one of them less.
FIRST = 96 * 32 + 2 * 32


def test_counts_of_mobile():
  assert models.count(NASNet(), 224) == (5_289_978, 563_638_816)


@pytest.mark.slow
def test_counts_of_large():
  assert models.count(models.create('nasnet_a_large'), 331) == (88_753_150, 23_783_414_658)


@pytest.mark.slow
def test_counts_on_cifar():
  assert models.count(models.create('nasnet_a_cifar'), 32) == (3_343_402 + FIRST, 541_187_584 + 32**2 * 96 * 32)


def shapes(net, size):
  variables, x = models.shapes(net, size)
  kernels = jax.tree.map(lambda leaf: leaf.shape, variables['params'])
  _, found = jax.eval_shape(lambda v, x: net.apply(v, x, False, mutable=['intermediates']), variables, x)
  return kernels, {name: leaf.shape[1:] for name, leaf in found['intermediates'].items()}


def test_six_states_of_a_normal_cell_four_of_a_reducing_one():
  kernels, found = shapes(NASNet(**SMALL), 64)
  fits = {cell: kernels[cell]['fit1']['conv']['kernel'][-2:] for cell in kernels if cell.startswith('cell')}
  assert fits == {'cell1': (8, 2), 'cell2': (4 * 2, 4), 'cell3': (4 * 4, 8), 'cell4': (6 * 8, 16), 'cell5': (4 * 16, 16),
                  'cell6': (6 * 16, 32), 'cell7': (4 * 32, 32)}
  assert found == {'stage1': (8, 8, 48), 'stage2': (4, 4, 96), 'stage3': (2, 2, 192), 'features': (2, 2, 192),
                   'pooled': (192,)}


@pytest.mark.parametrize('skip', [False, True])
def test_which_cell_is_read_past_a_reduction(skip):
  """Cell 5, behind the reduction, reads the cell before it (6 x 8 channels); or, in the large network, the one before
  that, here a reducing one of the stem (4 x 4)."""
  kernels, _ = shapes(NASNet(**SMALL, skip_reduction=skip), 64)
  assert kernels['cell5']['fit0']['even']['conv']['kernel'] == (1, 1, 4 * 4 if skip else 6 * 8, 8)
  assert kernels['cell4']['fit0']['conv']['kernel'] == (1, 1, 4 * 4, 16)


def test_the_first_cell_reads_the_stem_twice():
  imagenet, cifar = shapes(NASNet(**SMALL), 32)[0], shapes(NASNet(**SMALL | {'stem': 24}, imagenet=False), 32)[0]
  assert 'fit0' not in imagenet['cell1'] and 'fit0' not in cifar['cell1']
  assert imagenet['cell1']['edge1']['depthwise1']['conv']['kernel'] == (7, 7, 1, 8)
  fitted = [name for name in cifar['cell1'] if name.endswith('_fit')]
  assert sorted(fitted) == ['edge5_fit', 'edge6_fit', 'edge7_fit', 'output0_fit']
  assert all(cifar['cell1'][name]['conv']['kernel'] == (1, 1, 24, 8) for name in fitted)


def test_drop_path_rises_with_the_cell(monkeypatch):
  """Of seven cells cell i has i/7 of the rate, at each edge but the identities."""
  rates = []
  monkeypatch.setattr('effjax.layers.cell.drop_path', lambda key, x, rate: rates.append(rate) or x)
  net = NASNet(**SMALL, drop_path=.35)
  variables, x = models.shapes(net, 32)
  jax.eval_shape(lambda v, x: net.apply(v, x, True, mutable=['batch_stats'], rngs={'dropout': jax.random.key(0)}),
                 variables, x)
  edges = [9, 9, 8, 9, 8, 9, 8]  # a normal cell has two identities, a reducing one has one
  np.testing.assert_allclose(rates, np.repeat(.05 * np.arange(1, 8), edges))


def test_auxiliary_head(variables_of):
  net = NASNet(**SMALL, imagenet=False, auxiliary=True)
  variables, x = variables_of(net, 32)
  (logits, auxiliary), _ = jax.eval_shape(lambda v: net.apply(v, x, True, mutable=['batch_stats']), variables)
  assert logits.shape == (2, 10) and [a.shape for a in auxiliary] == [(2, 10)]
  assert variables['params']['auxiliary_head']['whole']['conv']['kernel'].shape == (4, 4, 128, 768)
  assert variables['params']['auxiliary_head']['project']['conv']['kernel'].shape[2] == 6 * 16


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(NASNet(**SMALL | {'features': 4}, drop_path=.2, imagenet=False), 32)


@pytest.mark.slow
@pytest.mark.parametrize('options', [{}, {'imagenet': False, 'stem': 12}], ids=['imagenet', 'cifar'])
def test_from_gates_to_a_file(to_file, options):
  to_file(NASNet(**SMALL | {'features': 4} | options), 32)
