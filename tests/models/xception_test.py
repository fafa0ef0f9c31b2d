"""Xception against the counts of Keras and timm."""
import jax
import jax.numpy as jnp
import pytest

from effjax import models
from effjax.models.xception import Xception

SMALL = Xception(5, width=.03, depth=1)


@pytest.mark.parametrize(('size', 'expected'), [(299, (22_855_952, 8_357_403_496)), (224, (22_855_952, 4_552_879_072))])
def test_counts(size, expected):
  assert models.count(Xception(), size) == expected


def test_intermediates():
  found = jax.eval_shape(lambda: SMALL.init_with_output(jax.random.key(0), jnp.ones((1, 32, 32, 3)), False, mutable=[
    'params', 'batch_stats', 'intermediates'])[1]['intermediates'])
  sizes = {name: leaf.shape[1:] for name, leaf in found.items()}
  assert sizes == {'stem': (13, 13, 8), 'entry1': (7, 7, 8), 'entry2': (4, 4, 8), 'entry3': (2, 2, 24), 'middle': (2, 2, 24),
                   'exit': (1, 1, 32), 'features': (1, 1, 64), 'pooled': (64,)}


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(SMALL, 32)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL, 32)
