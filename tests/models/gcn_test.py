"""GCN by hand counts."""
import jax
import jax.numpy as jnp
import pytest

from effjax import models, tree
from effjax.errors import EffjaxError
from effjax.models.gcn import GCN, VARIANTS
from effjax.models.resnet import ResNet

QUICK = ('gcn_resnet50',)  # the others differ in numbers alone
SMALL = GCN(5, width=.125, depths=(1, 1, 1, 1), bottleneck=False, kernel=5)
OF_RESNET = {'gcn_resnet50': (25_557_032, 4_089_184_256), 'gcn_resnet152': (60_192_808, 11_513_626_624)}


@pytest.mark.parametrize('name', [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in VARIANTS])
def test_counts(name):
  stages, c, n, k = (256, 512, 1024, 2048), 21, 512, 15
  parameters, macs = OF_RESNET[name]
  parameters, macs = parameters - 2049 * 1000, (macs - 2_048_000) * n**2 // 224**2
  for i, channels in enumerate(stages, 2):
    weights = 2 * k * c * (channels + c)
    parameters, macs = parameters + weights, macs + weights * (n >> i)**2
  sizes = [n >> i for i in (5, 4, 4, 3, 3, 2, 2, 1, 0)]  # of nine refinements: of a stage, and after each doubling
  parameters += 9 * 2 * (9 * c * c + c) + 5 * 16 * c * c
  macs += 18 * c * c * sum(size**2 for size in sizes) + 16 * c * c * sum((n >> i)**2 for i in (5, 4, 3, 2, 1))
  assert models.count(VARIANTS[name].make(), n) == (parameters, macs)


def test_a_resnet_with_scores():
  x = jnp.ones((1, 32, 96, 3))
  out, found = jax.eval_shape(lambda: SMALL.init_with_output(
    jax.random.key(0), x, False, mutable=['params', 'batch_stats', 'intermediates']))
  assert out.shape == (1, 32, 96, 5)
  sizes = {name: leaf.shape[1:] for name, leaf in found['intermediates'].items()}
  size = lambda i: (32 >> i + 1, 96 >> i + 1)
  assert sizes == {name: shape for i in range(1, 5)
                   for name, shape in {f'stage{i}': (*size(i), 4 << i), f'scores{i}': (*size(i), 5)}.items()}
  resnet = ResNet(width=.125, depths=(1, 1, 1, 1), bottleneck=False)
  of_resnet = tree.leaves(models.shapes(resnet, 32)[0]['params'])
  mine = tree.leaves(found['params'])
  assert {path: leaf.shape for path, leaf in of_resnet.items() if not path.startswith('classifier')}.items() <= {
    path: leaf.shape for path, leaf in mine.items()}.items()


def test_sizes_that_32_does_not_divide():
  with pytest.raises(EffjaxError, match=r'GCN: height and width \(48, 64\) are no multiples of 32: pad or resize'):
    models.shapes(SMALL, (48, 64))


@pytest.mark.slow
def test_one_step_learns(learns):
  learns(SMALL, 32)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL, 32)
