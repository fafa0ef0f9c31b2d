"""FBNet's block, step by step from its own parts."""
import jax
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import ConvBN, InvertedResidual, channel_shuffle
from effjax.search.fbnet_block import FBNetBlock

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 6, 6, 4))


def start(net):
  return jax.jit(lambda: net.init(KEY, X, False))()


@pytest.mark.parametrize(('expand', 'kernel', 'groups', 'features', 'strides'), [(1, 3, 2, 4, 1), (3, 5, 1, 6, 2)])
def test_it_is_its_steps_and_has_their_parameters(expand, kernel, groups, features, strides):
  net = FBNetBlock(features, strides, expand, kernel, groups)
  variables, hidden = start(net), expand * 4

  def part(name, conv, y):
    return conv.apply({kind: tree[name] for kind, tree in variables.items()}, y, False)

  y = part('expand', ConvBN(hidden, 1, groups=groups, activation=jax.nn.relu), X)
  y = part('depthwise', ConvBN(hidden, kernel, strides, hidden, jax.nn.relu), channel_shuffle(y, groups))
  y = part('project', ConvBN(features, 1, groups=groups, activation=None), y)
  want = X + y if strides == 1 else y
  np.testing.assert_allclose(jax.jit(lambda: net.apply(variables, X, False))(), want, rtol=1e-5, atol=1e-6)
  count = sum(a.size for a in jax.tree.leaves(variables['params']))
  assert count == hidden * (4 // groups + kernel**2 + features // groups + 4) + 2 * features


def test_without_groups_it_is_an_inverted_residual():
  net, other = FBNetBlock(4, 1, 3), InvertedResidual(4, 1, 3, activation=jax.nn.relu)
  run = lambda net: jax.jit(lambda: net.apply(net.init(KEY, X, False), X, False))()
  np.testing.assert_allclose(run(net), run(other), rtol=1e-6)


def test_the_shuffle_lets_every_input_reach_every_output():
  net = FBNetBlock(4, 2, 1, groups=2, activation=None)
  variables = start(net)
  reach = jax.jit(jax.jacobian(lambda x: net.apply(variables, x, False).sum((0, 1, 2))))(X)
  assert (np.abs(reach).sum((1, 2, 3)) > 0).all()


def test_groups_that_do_not_divide_are_refused():
  with pytest.raises(EffjaxError, match=r'ConvBN expand: 3 groups do not divide 4 input and 4 output channels: choose'):
    FBNetBlock(4, groups=3).init(KEY, X, False)
