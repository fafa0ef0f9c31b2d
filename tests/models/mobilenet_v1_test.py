"""MobileNet against the counts of Keras, timm and the paper."""
import jax
import jax.numpy as jnp
import pytest

from effjax import models
from effjax.models.mobilenet_v1 import VARIANTS, MobileNetV1

COUNTS = {'mobilenet_v1': (4_231_976, 568_740_352), 'mobilenet_v1_0.75': (2_585_560, 325_400_448),
          'mobilenet_v1_0.5': (1_331_592, 149_497_088), 'mobilenet_v1_0.25': (470_072, 41_030_272),
          'mobilenet_v1_dense': (29_294_088, 4_867_293_184)}
SMALL = MobileNetV1(5, width=.125, depths=(1, 1, 1, 2, 1))


@pytest.mark.parametrize('name', COUNTS)
def test_counts(name):
  assert models.count(VARIANTS[name].make(), 224) == COUNTS[name]


def test_a_block_costs_its_share_of_the_dense_one():
  """1 / features + 1 / 9 of the multiply-accumulates, by the shapes of the layers of both networks."""
  separable, dense = (models.shapes(MobileNetV1(dense=dense), 224)[0]['params'] for dense in (False, True))
  size = lambda layer: layer['conv']['kernel'].size
  for name in [f'stage{i}_block1' for i in range(1, 6)]:
    (*_, features), block = dense[name]['conv']['kernel'].shape, separable[name]
    assert (size(block['depthwise']) + size(block['pointwise'])) * 9 * features == size(dense[name]) * (9 + features)


@pytest.mark.parametrize('padding', ['SAME', 'symmetric'])
def test_intermediates(padding):
  net, x = SMALL.copy(padding=padding), jnp.ones((1, 32, 32, 3))
  kinds = ['params', 'batch_stats', 'intermediates']
  found = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), x, False, mutable=kinds))[1]['intermediates']
  sizes = {name: leaf.shape[1:] for name, leaf in found.items()}
  assert sizes == {'stage1': (16, 16, 8), 'stage2': (8, 8, 16), 'stage3': (4, 4, 32), 'stage4': (2, 2, 64), 'stage5':
                   (1, 1, 128), 'features': (1, 1, 128), 'pooled': (128,)}


@pytest.mark.slow
@pytest.mark.parametrize('dense', [False, True])
def test_one_step_learns(learns, dense):
  learns(SMALL.copy(dense=dense), 32)


@pytest.mark.slow
@pytest.mark.parametrize('dense', [False, True])
def test_from_gates_to_a_file(to_file, dense):
  to_file(SMALL.copy(dense=dense), 32)
