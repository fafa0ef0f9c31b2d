"""The sum of residual blocks: shortcuts, errors."""
import jax
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import BasicBlock, Bottleneck

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 8, 8, 4))


def zeroed(net, last):
  """The output with BatchNorm's scale at zero in the last layer of the branch, and the parameters."""
  def run(key):
    variables = net.init(key, X, False)
    variables['params'][last]['bn']['scale'] *= 0.
    return net.apply(variables, X, False), variables['params']
  return jax.jit(run)(KEY)


@pytest.mark.parametrize(('block', 'last'), [(BasicBlock(4), 'conv2'), (Bottleneck(1), 'expand')])
def test_without_its_branch_a_block_is_relu(block, last):
  out, params = zeroed(block, last)
  np.testing.assert_array_equal(out, np.maximum(X, 0.))
  assert 'shortcut' not in params


def test_pad_takes_every_second_pixel_and_appends_zeros():
  out, params = zeroed(BasicBlock(6, 2, 'pad'), 'conv2')
  np.testing.assert_array_equal(out[..., :4], np.maximum(X[:, ::2, ::2], 0.))
  assert out.shape == (2, 4, 4, 6) and not out[..., 4:].any() and 'shortcut' not in params


@pytest.mark.parametrize('shortcut', ['project', 'conv'])
def test_a_projection(shortcut):
  out, params = zeroed(BasicBlock(6, 2, shortcut, epsilon=0.), 'conv2')
  expected = np.float64(X[:, ::2, ::2]) @ np.float64(params['shortcut']['conv']['kernel'][0, 0])
  np.testing.assert_allclose(out, np.maximum(expected, 0.), rtol=1e-4, atol=1e-5)
  assert sorted(params['shortcut']) == (['bn', 'conv'] if shortcut == 'project' else ['conv'])
  assert ('bias' in params['shortcut']['conv']) == (shortcut == 'conv')


def test_biases_are_asked_for():
  net = BasicBlock(4, 1, 'project', bias=True)
  params = jax.eval_shape(lambda key: net.init(key, X, False), KEY)['params']
  assert all(set(layer['conv']) == {'kernel', 'bias'} for layer in params.values())


def test_errors():
  with pytest.raises(EffjaxError, match=r"residual block: shortcut 'a' is unknown: choose one of \('identity', 'pad', "):
    jax.eval_shape(lambda key: BasicBlock(4, shortcut='a').init(key, X, False), KEY)
  with pytest.raises(EffjaxError, match=r"residual block .*: shortcut 'pad' cannot make 3 channels of 4: give .* least as"):
    jax.eval_shape(lambda key: BasicBlock(3, 2, 'pad').init(key, X, False), KEY)
