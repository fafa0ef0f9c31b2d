"""DS-CNN against a count by hand of MLPerf Tiny's reference."""
import jax
import numpy as np
import pytest

from effjax import models
from effjax.models.ds_cnn import DSCNN

SIZE = (49, 10)
SMALL = DSCNN(5, width=.125, depth=2)


def test_counts_by_hand():
  stem, block = 10 * 4 * 64 + 3 * 64, (3 * 3 * 64 + 3 * 64) + (64 * 64 + 3 * 64)  # kernel, bias, BatchNorm
  parameters = stem + 4 * block + 64 * 12 + 12
  macs = 25 * 5 * (10 * 4 * 64 + 4 * (3 * 3 * 64 + 64 * 64)) + 64 * 12
  net = models.create('ds_cnn_mlperf_tiny')
  assert models.count(net, SIZE) == (parameters, macs) == (23_756, 2_656_768)
  stats = models.shapes(net, SIZE)[0]['batch_stats']
  assert parameters + sum(leaf.size for leaf in jax.tree.leaves(stats)) == 24_908


def test_the_pool_leaves_out_the_last_row(variables_of):
  variables, x = variables_of(SMALL, SIZE)
  found = jax.jit(lambda: SMALL.apply(variables, x, False, mutable=['intermediates'])[1])()['intermediates']
  assert found['features'].shape == (2, 25, 5, 8)
  np.testing.assert_allclose(found['pooled'], np.float64(found['features'])[:, :24].mean((1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(SMALL, SIZE)


def test_from_gates_to_a_file(to_file):
  to_file(SMALL, SIZE)
