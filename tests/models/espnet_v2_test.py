"""ESPNetv2 against the counts of the authors' code, without the parameters that it never uses."""
import jax
import jax.numpy as jnp
import pytest

from effjax import models
from effjax.models.espnet_v2 import VARIANTS, ESPNetV2

COUNTS = {'espnet_v2_0.5': (1_239_722, 29_399_508), 'espnet_v2': (1_666_942, 86_744_404),
          'espnet_v2_1.25': (1_961_542, 124_423_444), 'espnet_v2_1.5': (2_310_190, 169_628_884),
          'espnet_v2_2.0': (3_491_934, 286_086_228)}
QUICK = ('espnet_v2_0.5', 'espnet_v2_1.25')  # the others differ in numbers alone
SMALL = ESPNetV2(5, width=.5, depths=(0, 1, 0, 1), head=64)


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in COUNTS])
def test_counts(name):
  assert models.count(VARIANTS[name].make(), 224) == COUNTS[name]


def test_sizes_of_the_stages():
  for padding in ('SAME', 'symmetric'):
    net = SMALL.copy(padding=padding)
    found = jax.eval_shape(lambda net=net: net.init_with_output(
      jax.random.key(0), jnp.ones((1, 64, 96, 3)), False, mutable=['params', 'batch_stats', 'intermediates']))[1]
    sizes = {name: leaf.shape[1:] for name, leaf in found['intermediates'].items()}
    assert sizes == {'stage1': (32, 48, 16), 'stage2': (16, 24, 32), 'stage3': (8, 12, 64), 'stage4': (4, 6, 128),
                     'stage5': (2, 3, 256), 'features': (2, 3, 64), 'pooled': (64,)}


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(SMALL, 32)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL, 32)
