"""ConvNeXt against the counts of timm."""
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import graph, models
from effjax.models.convnext import VARIANTS, ConvNeXt, ConvNeXtBlock

COUNTS = {'convnext_tiny': (28_589_128, 4_455_531_264), 'convnext_small': (50_223_688, 8_683_712_256),
          'convnext_base': (88_591_464, 15_354_729_472), 'convnext_large': (197_767_336, 34_361_433_600)}
SMALL = ConvNeXt(5, depths=(1, 1, 2, 1), features=(8, 8, 16, 16))


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] * (name != 'convnext_tiny'))
                                  for name in COUNTS])
def test_counts(name):
  assert models.count(VARIANTS[name].make(), 224) == COUNTS[name]


def test_the_smaller_count_has_dense_layers_once_per_image():
  """319,611,648 of a hook that counts a dense layer by its kernel: without the 56^2, 28^2, 14^2, 7^2 pixels."""
  blocks = [(depth, features, 56 // 2**i) for i, (depth, features) in enumerate(zip((3, 3, 9, 3), (96, 192, 384, 768)))]
  dense = lambda pixels: sum(depth * 8 * features**2 * (size**2 if pixels else 1) for depth, features, size in blocks)
  assert COUNTS['convnext_tiny'][1] - dense(True) + dense(False) == 319_611_648


def test_a_block_by_its_definition():
  rng = np.random.default_rng(0)
  x, block = rng.normal(size=(2, 7, 9, 3)), ConvNeXtBlock(3, epsilon=1e-6)
  shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), jnp.asarray(x, jnp.float32), False))
  params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes['params'])
  padded, kernel = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0))), params['depthwise']['conv']['kernel']
  y = sum(padded[:, i:i + 7, j:j + 9] * kernel[i, j, 0] for i in range(7) for j in range(7))
  y = y + params['depthwise']['conv']['bias']
  y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
  y = y * params['norm']['scale'] + params['norm']['bias']
  y = y @ params['hidden']['kernel'] + params['hidden']['bias']
  y = y / 2 * (1 + np.vectorize(math.erf)(y / 2**.5))
  y = x + (y @ params['project']['kernel'] + params['project']['bias']) * params['scale']['scale']
  f32 = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
  np.testing.assert_allclose(block.apply({'params': f32}, jnp.asarray(x, jnp.float32), False), y, rtol=1e-4, atol=1e-4)


def test_channels_of_stages_and_of_hidden_layers_can_be_removed(variables_of):
  variables, x = variables_of(SMALL, 32)
  found = graph.channels(lambda variables, x: SMALL.apply(variables, x, False), variables, x)
  assert found.size == sum((4 * depth + 1) * features for depth, features in zip(SMALL.depths, SMALL.features))


@pytest.mark.parametrize('padding', ['SAME', 'symmetric'])
def test_intermediates(padding):
  net, x = SMALL.copy(padding=padding), jnp.ones((1, 32, 32, 3))
  kinds = ['params', 'batch_stats', 'intermediates']
  found = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), x, False, mutable=kinds))[1]['intermediates']
  sizes = {name: leaf.shape[1:] for name, leaf in found.items()}
  assert sizes == {'stage1': (8, 8, 8), 'stage2': (4, 4, 8), 'stage3': (2, 2, 16), 'stage4': (1, 1, 16), 'features':
                   (1, 1, 16), 'pooled': (16,)}


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(SMALL, 32)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL, 32)
