"""GhostNet against the counts of timm."""
import jax
import jax.numpy as jnp
import pytest

from effjax import models
from effjax.models.ghostnet import STAGES, VARIANTS, GhostNet

COUNTS = {'ghostnet': (5_182_508, 141_150_512), 'ghostnet_0.5': (2_587_292, 42_328_152),
          'ghostnet_1.3': (7_358_820, 227_003_256)}
QUICK = ('ghostnet',)  # the others differ in numbers alone
SMALL = GhostNet(5, width=.25, hidden=8, stages=(STAGES[0], STAGES[2]))


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in COUNTS])
def test_counts(name):
  assert models.count(VARIANTS[name].make(), 224) == COUNTS[name]


@pytest.mark.parametrize('padding', ['SAME', 'symmetric'])
def test_intermediates(padding):
  net, x = SMALL.copy(padding=padding), jnp.ones((1, 32, 32, 3))
  kinds = ['params', 'batch_stats', 'intermediates']
  found = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), x, False, mutable=kinds))[1]['intermediates']
  sizes = {name: leaf.shape[1:] for name, leaf in found.items()}
  assert sizes == {'stage1': (16, 16, 4), 'stage2': (8, 8, 12), 'features': (8, 8, 32), 'pooled': (32,)}


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(SMALL, 32)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL, 32)
