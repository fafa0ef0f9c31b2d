"""MobileNetV3 against the counts of Keras, torchvision and timm."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import models
from effjax.models.mobilenet_v3 import LARGE, SMALL, VARIANTS, MobileNetV3

COUNTS = {'mobilenet_v3_large': (5_483_032, 216_589_760), 'mobilenet_v3_large_0.75': (3_993_528, 154_560_624),
          'mobilenet_v3_large_minimal': (3_924_288, 209_136_704), 'mobilenet_v3_small': (2_542_856, 56_510_400),
          'mobilenet_v3_small_0.75': (2_041_872, 43_399_344)}
QUICK = ('mobilenet_v3_large_minimal', 'mobilenet_v3_small')  # the others differ in numbers alone
NARROW = MobileNetV3(5, width=.25, hidden=8, stages=(SMALL[0], LARGE[2][1:], SMALL[2][:2]))


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in COUNTS])
def test_counts(name):
  assert models.count(VARIANTS[name].make(), 224) == COUNTS[name]


def test_counts_of_half_the_width():
  assert models.count(VARIANTS['mobilenet_v3_small'].make(width=.5), 224) == (1_593_224, 24_188_688)


def test_dropout_is_for_training(variables_of):
  net = NARROW.copy(dropout=.5, stages=SMALL[:1])
  variables, x = variables_of(net, 32)
  out = lambda train, seed: net.apply(variables, x, train, rngs={'dropout': jax.random.key(seed)}, mutable=['batch_stats'])[0]
  np.testing.assert_array_equal(out(False, 0), out(False, 1))
  assert jnp.any(out(True, 0) != out(True, 1))


@pytest.mark.parametrize('padding', ['SAME', 'symmetric'])
def test_intermediates(padding):
  net, x = NARROW.copy(padding=padding), jnp.ones((1, 32, 32, 3))
  kinds = ['params', 'batch_stats', 'intermediates']
  found = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), x, False, mutable=kinds))[1]['intermediates']
  sizes = {name: leaf.shape[1:] for name, leaf in found.items()}
  assert sizes == {'stage1': (8, 8, 8), 'stage2': (8, 8, 16), 'stage3': (4, 4, 16), 'features': (4, 4, 96), 'pooled':
                   (96,)}


@pytest.mark.slow
@pytest.mark.parametrize('minimal', [False, True])
def test_one_step_learns(learns, minimal):
  learns(NARROW.copy(minimal=minimal), 32)


@pytest.mark.slow
@pytest.mark.parametrize('minimal', [False, True])
def test_from_gates_to_a_file(to_file, minimal):
  to_file(NARROW.copy(minimal=minimal), 32)
