"""DenseNet against the counts of torchvision, Keras and pytorchcv."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import models
from effjax.layers import BatchNorm, Conv, ConvBN
from effjax.models.densenet import VARIANTS, CifarDenseNet, DenseNet

COUNTS = {'densenet121': (7_978_856, 2_834_161_664), 'densenet161': (28_681_000, 7_727_907_072),
          'densenet169': (14_149_480, 3_359_843_328), 'densenet201': (20_013_928, 4_291_365_888),
          'densenet40_k12_cifar': (1_019_722, 264_812_928), 'densenet100_k12_bc_cifar': (769_162, 287_929_692),
          'densenet190_k40_bc_cifar': (25_624_430, 9_301_945_740)}
SLOW = ('densenet161', 'densenet169', 'densenet201', 'densenet100_k12_bc_cifar', 'densenet190_k40_bc_cifar')  # seconds to trace
SMALL = DenseNet(5, growth=8, initial=16, depths=(1, 2, 1, 1))
SMALL_CIFAR = CifarDenseNet(5, growth=4, initial=8, depths=(3, 1, 1))


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in COUNTS])
def test_counts(name):
  assert models.count(models.create(name), VARIANTS[name].size) == COUNTS[name]


@pytest.mark.parametrize(('net', 'expected'), [
    (CifarDenseNet(initial=24, compression=.5), (599_050, 205_906_452)),
    (CifarDenseNet(initial=24, depths=(6, 6, 6), bottleneck=True, compression=.5), (176_122, 72_365_352))])
def test_counts_of_pytorchcv_which_compresses_more(net, expected):
  assert models.count(net, 32) == expected


def test_a_block_passes_its_input_on(variables_of):
  """The derivative of its output by its input contains the identity."""
  variables, x = variables_of(SMALL_CIFAR, 8)

  def stages(x):
    return SMALL_CIFAR.apply(variables, x, False, mutable=['intermediates'])[1]['intermediates']['stage1']
  kernel = variables['params']['stem']['conv']['kernel']
  stem = Conv(8).apply({'params': {'conv': {'kernel': kernel}}}, x)
  np.testing.assert_array_equal(jax.jit(stages)(x)[..., :8], stem)


@pytest.mark.parametrize('bottleneck', [False, True])
def test_writing_into_one_buffer_gives_the_same(bottleneck, variables_of):
  net = SMALL_CIFAR.copy(bottleneck=bottleneck)
  variables, x = variables_of(net, 8)

  def layer(module, name, x):
    own = {kind: of[name] for kind, of in variables.items() if name in of}
    return module.apply(own, x) if isinstance(module, Conv) else module.apply(own, x, False)

  def buffered(x):
    first = layer(Conv(8), 'stem', x)
    buffer = jnp.zeros((*first.shape[:3], 8 + 3 * 4)).at[..., :8].set(first)
    for j in range(1, 4):
      y = layer(BatchNorm(jax.nn.relu), f'stage1_layer{j}_bn', buffer[..., :8 + 4 * (j - 1)])
      y = layer(ConvBN(16, 1, activation=jax.nn.relu), f'stage1_layer{j}_bottleneck', y) if bottleneck else y
      buffer = buffer.at[..., 4 + 4 * j:8 + 4 * j].set(layer(Conv(4), f'stage1_layer{j}_conv', y))
    return buffer
  found = jax.jit(lambda x: net.apply(variables, x, False, mutable=['intermediates'])[1]['intermediates'])(x)
  np.testing.assert_allclose(jax.jit(buffered)(x), found['stage1'], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('net', [SMALL, SMALL_CIFAR], ids=['imagenet', 'cifar'])
def test_one_step_learns(net, learns):
  learns(net, 32 if net is SMALL else 8)


@pytest.mark.slow
@pytest.mark.parametrize('net', [SMALL, SMALL_CIFAR], ids=['imagenet', 'cifar'])
def test_from_gates_to_a_file(net, to_file):
  to_file(net, 32)
