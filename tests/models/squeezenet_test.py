"""SqueezeNet against the counts of torchvision, at both sizes that are in use."""
import jax
import jax.numpy as jnp
import pytest

from effjax import models
from effjax.models.squeezenet import SqueezeNet

COUNTS = {('squeezenet1_0', 224): (1_248_424, 818_924_576), ('squeezenet1_0', 227): (1_248_424, 832_667_936),
          ('squeezenet1_1', 224): (1_235_496, 349_151_936), ('squeezenet1_1', 227): (1_235_496, 387_747_520)}
SMALL = SqueezeNet(5, width=.25)


@pytest.mark.parametrize(('name', 'size'), COUNTS)
def test_counts(name, size):
  assert models.count(models.create(name), size) == COUNTS[name, size]


@pytest.mark.parametrize(('name', 'expected'), [('squeezenet1_0', (109, 54, 27, 13)), ('squeezenet1_1', (111, 55, 27, 13))])
def test_sizes(name, expected):
  net = models.create(name)
  found = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), jnp.ones((1, 224, 224, 3)), False,
                                                      mutable=['params', 'intermediates'])[1]['intermediates'])
  assert tuple(found[f'stage{i}'].shape[1] for i in (1, 2, 3, 4)) == expected
  assert found['features'].shape == (1, 13, 13, 512)


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(SMALL, 32)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['squeezenet1_0', 'squeezenet1_1'])
def test_from_gates_to_a_file(name, to_file):
  to_file(models.create(name, num_classes=5, width=.25), 36)
