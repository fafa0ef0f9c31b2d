"""The block of MobileNetV2: shapes, wiring, counts."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.layers import InvertedResidual

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 8, 8, 4))


@pytest.mark.parametrize(('features', 'strides', 'residual'), [(4, 1, True), (6, 1, False), (4, 2, False)])
def test_x_is_added_where_the_shape_allows(features, strides, residual):
  """With the projection's BatchNorm at zero the block is the identity, or zero."""
  net = InvertedResidual(features, strides)
  y, variables = net.init_with_output(KEY, X, False)
  assert y.shape == (2, 8 // strides, 8 // strides, features)
  variables['params']['project']['bn']['scale'] = jnp.zeros(features)
  np.testing.assert_array_equal(net.apply(variables, X, False), X if residual else 0.)


def test_the_projection_is_linear_and_the_others_are_activated():
  net = InvertedResidual(6, activation=lambda x: jnp.full_like(x, 2.))
  y, variables = net.init_with_output(KEY, X, False)
  kernel = variables['params']['project']['conv']['kernel'][0, 0]
  expected = 2. * kernel.sum(0) / np.sqrt(1.001)
  np.testing.assert_allclose(y, jnp.broadcast_to(expected, y.shape), rtol=1e-5)


@pytest.mark.parametrize(('expand', 'kernel'), [(6, 3), (3, 5)])
def test_parameters(expand, kernel):
  net = InvertedResidual(6, expand=expand, kernel=kernel)
  shapes = jax.tree.map(jnp.shape, jax.eval_shape(lambda key: net.init(key, X, False)['params'], KEY))
  h = 4 * expand
  assert shapes == {'expand': {'conv': {'kernel': (1, 1, 4, h)}, 'bn': {'scale': (h,), 'bias': (h,)}},
                    'depthwise': {'conv': {'kernel': (kernel, kernel, 1, h)}, 'bn': {'scale': (h,), 'bias': (h,)}},
                    'project': {'conv': {'kernel': (1, 1, h, 6)}, 'bn': {'scale': (6,), 'bias': (6,)}}}


def test_nothing_is_expanded_at_expand_one():
  assert sorted(InvertedResidual(6, expand=1).init(KEY, X, False)['params']) == ['depthwise', 'project']


def test_the_published_count_of_mobilenet_v2():
  """3,504,872 parameters: stem, the 17 blocks of table 2, head and classifier (survey [10])."""
  table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
  channels, count = 32, 3 * 3 * 3 * 32 + 2 * 32
  for expand, features, repeats, strides in table:
    for i in range(repeats):
      block = InvertedResidual(features, strides if i == 0 else 1, expand)
      init = lambda x, block=block: block.init(KEY, x, False)['params']
      shapes = jax.eval_shape(init, jax.ShapeDtypeStruct((1, 8, 8, channels), jnp.float32))
      count, channels = count + sum(x.size for x in jax.tree.leaves(shapes)), features
  assert count + 320 * 1280 + 2 * 1280 + 1280 * 1000 + 1000 == 3_504_872
