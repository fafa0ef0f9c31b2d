"""RepVGG's block: three branches are one convolution."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import tree
from effjax.errors import EffjaxError
from effjax.layers import RepVGGBlock, merge_branches

KEY = jax.random.key(0)


def trained(block, x, seed=0):
  """Random variables with statistics that do something."""
  rng, shapes = np.random.default_rng(seed), jax.eval_shape(lambda key: block.init(key, x, False), KEY)
  draw = lambda path, leaf: rng.uniform(.5, 2., leaf.shape) if path.endswith('var') else rng.normal(size=leaf.shape)
  leaves = [jnp.asarray(draw(path, leaf), jnp.float32) for path, leaf in tree.leaves(shapes).items()]
  return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


@pytest.mark.parametrize('padding', ['SAME', 'symmetric'])
@pytest.mark.parametrize(('strides', 'identity', 'shape'), [(1, True, (6, 5)), (1, False, (5, 6)), (2, False, (6, 6)),
                                                            (2, False, (7, 6)), (2, False, (6, 7)), (2, False, (7, 7))])
def test_the_branches_are_one_convolution(padding, strides, identity, shape):
  x = jax.random.normal(KEY, (2, *shape, 3))
  block = RepVGGBlock(3 if identity else 4, strides, identity, padding=padding)
  variables = trained(block, x)
  merged = merge_branches(variables['params'], variables['batch_stats'], block.epsilon)
  y = block.copy(deployed=True).apply({'params': merged}, x, False)
  assert y.shape[1:3] == tuple(-(-size // strides) for size in shape)
  np.testing.assert_allclose(y, block.apply(variables, x, False), rtol=1e-4, atol=1e-4)


def test_the_merged_kernel_by_hand():
  block = RepVGGBlock(3, identity=True, epsilon=.25)
  variables = trained(block, jnp.ones((1, 4, 4, 3)))
  params, stats = jax.tree.map(np.float64, (variables['params'], variables['batch_stats']))
  merged = merge_branches(variables['params'], variables['batch_stats'], .25)['conv']
  kernel, bias = np.zeros((3, 3, 3, 3)), np.zeros(3)
  for c in range(3):
    for branch in ('spatial', 'point', 'identity'):
      norm, seen = (params[branch], stats[branch]) if branch == 'identity' else (params[branch]['bn'], stats[branch]['bn'])
      t = norm['scale'][c] / np.sqrt(seen['var'][c] + .25)
      bias[c] += norm['bias'][c] - t * seen['mean'][c]
      if branch == 'spatial':
        kernel[..., c] += t * params[branch]['conv']['kernel'][..., c]
      elif branch == 'point':
        kernel[1, 1, :, c] += t * params[branch]['conv']['kernel'][0, 0, :, c]
      else:
        kernel[1, 1, c, c] += t
  np.testing.assert_allclose(merged['kernel'], kernel, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(merged['bias'], bias, rtol=1e-5, atol=1e-6)


def test_errors():
  init = lambda **options: RepVGGBlock(3, **options).init(KEY, jnp.ones((1, 4, 4, 3)), False)
  with pytest.raises(EffjaxError, match=r"RepVGGBlock \(top\): padding 'VALID' makes branches of several sizes: choose 'S"):
    init(padding='VALID')
  with pytest.raises(EffjaxError, match=r'RepVGGBlock \(top\): strides 2 and identity=True, wanted strides 1, or 2 without'):
    init(strides=2, identity=True)
