"""DARTS' networks: counts from first principles, cells as the genotype says, the auxiliary head, drop path."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import models
from effjax.errors import EffjaxError
from effjax.models import genotypes
from effjax.models.darts import DARTS

SMALL = dict(num_classes=10, features=4, cells=3)
SKIP = lambda edges: tuple(('skip_connect', state) for _, state in edges)
NOTHING = genotypes.DARTS_V2._replace(normal=SKIP(genotypes.DARTS_V2.normal), reduce=SKIP(genotypes.DARTS_V2.reduce))
COUNTS = {
    'darts_v1_cifar': (3_169_414, 500_987_520), 'darts_v2_cifar': (3_349_342, 528_359_040),
    'darts_v2_imagenet': (4_718_752, 529_911_552), 'gdas_v1_cifar': (3_368_782, 519_428_736),
    'p_darts_cifar': (3_433_798, 532_174_464), 'p_darts_imagenet': (4_944_352, 542_819_328),
    'pc_darts_cifar': (3_634_678, 556_670_592), 'pc_darts_imagenet': (5_342_464, 581_627_328)}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in COUNTS if name != 'darts_v2_cifar']


@pytest.mark.parametrize('name', ['darts_v2_cifar', *SLOW])
def test_counts(name):
  assert models.count(models.create(name), models.NETWORKS[name].size) == COUNTS[name]


def by_hand(genotype, features, cells, classes):
  """Parameters on CIFAR, from the lists alone."""
  sep = lambda c, k: 2 * (k * k * c + c * c + 2 * c)
  dil = lambda c, k: k * k * c + c * c + 2 * c
  one = lambda a, b: a * b + 2 * b
  weights = {'sep_conv_3x3': lambda c: sep(c, 3), 'sep_conv_5x5': lambda c: sep(c, 5), 'dil_conv_3x3': lambda c: dil(c, 3),
             'dil_conv_5x5': lambda c: dil(c, 5)}
  before, last, c, total = 3 * features, 3 * features, features, 27 * 3 * features + 2 * 3 * features
  for i in range(cells):
    reduce = i in (cells // 3, 2 * cells // 3)
    c *= 1 + reduce
    edges = genotype.reduce if reduce else genotype.normal
    total += one(before, c) + one(last, c) + sum(weights.get(name, lambda c: 0)(c) for name, _ in edges)
    total += one(c, c) * sum(name == 'skip_connect' and state < 2 for name, state in edges) * reduce
    before, last = last, 4 * c
  return total + (last + 1) * classes


@pytest.mark.parametrize('name', ['DARTS_V1', 'DARTS_V2', 'P_DARTS', 'PC_DARTS_CIFAR', 'GDAS_V1'])
def test_parameters_by_hand(name):
  genotype = getattr(genotypes, name)
  assert by_hand(genotype, 36, 20, 10) == COUNTS[f'{name.lower().removesuffix("_cifar")}_cifar'][0]
  net = DARTS(**SMALL, genotype=genotype)
  variables, _ = models.shapes(net, 32)
  assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(variables['params'])) == by_hand(genotype, 4, 3, 10)


def test_what_a_search_that_collapsed_to_identities_finds():
  assert by_hand(NOTHING, 36, 20, 10) == 1_501_894
  net = DARTS(**SMALL, genotype=NOTHING)
  assert models.count(net, 32)[0] == by_hand(NOTHING, 4, 3, 10)


def test_auxiliary_head_is_there_in_training_alone(variables_of):
  net = DARTS(**SMALL, auxiliary=True)
  variables, x = variables_of(net, 32)
  assert sum(leaf.size for leaf in jax.tree.leaves(variables['params']['auxiliary_head'])) == (
      64 * 128 + 2 * 128 + 4 * 128 * 768 + 2 * 768 + 769 * 10)
  (logits, auxiliary), _ = jax.eval_shape(lambda v: net.apply(v, x, True, mutable=['batch_stats']), variables)
  assert logits.shape == (2, 10) and [a.shape for a in auxiliary] == [(2, 10)]
  assert jax.eval_shape(lambda v: net.apply(v, x, False), variables).shape == (2, 10)


@pytest.mark.slow
def test_published_count_with_the_auxiliary_head():
  assert models.count(models.create('darts_v2_cifar', auxiliary=True), 32) == (3_825_768, 528_359_040)


@pytest.mark.parametrize(('options', 'size', 'sizes'), [({}, 32, (32, 16, 8)), ({'imagenet': True}, 64, (8, 4, 2))])
def test_intermediates_and_sizes(options, size, sizes):
  net = DARTS(**SMALL, **options)
  variables, x = models.shapes(net, size)
  _, found = jax.eval_shape(lambda v, x: net.apply(v, x, False, mutable=['intermediates']), variables, x)
  found = {name: leaf.shape[1] for name, leaf in found['intermediates'].items() if name.startswith('stage')}
  assert found == {f'stage{i}': n for i, n in enumerate(sizes, 1)}


def test_a_genotype_that_is_none():
  broken = genotypes.DARTS_V2._replace(reduce_concat=(6,))
  with pytest.raises(EffjaxError, match=r'Cell cell2: states \[6\] of concat are not there: there are 0 to 5'):
    models.shapes(DARTS(**SMALL, genotype=broken), 32)


@pytest.mark.slow
def test_one_step_learns(learns):
  both = lambda out: jnp.mean(jnp.square(out[0] - 1)) + .4 * jnp.mean(jnp.square(out[1][0] - 1))
  learns(DARTS(**SMALL, auxiliary=True, drop_path=.2), 32, both)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(DARTS(**SMALL), 32)


@pytest.mark.slow
def test_from_gates_to_a_file_other_genotype_on_imagenet(to_file):
  to_file(DARTS(**SMALL, genotype=genotypes.PC_DARTS_CIFAR, imagenet=True), 40)
