"""The sum of candidates, and what must not be summed."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import ConvBN
from effjax.search.choice import Choice, Skip, check_choice

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 4, 4, 3))


def test_the_sum_and_the_parameter():
  net = Choice((ConvBN(3, name='conv'), Skip(name='skip')))
  y, variables = net.init_with_output(KEY, X, False)
  np.testing.assert_array_equal(variables['params']['choice'], [0.5, 0.5])
  assert sorted(variables['params']) == ['choice', 'conv'] and 'conv' in variables['batch_stats']
  one = ConvBN(3).apply({name: part['conv'] for name, part in variables.items()}, X, False)
  np.testing.assert_allclose(y, 0.5 * one + 0.5 * X, rtol=1e-6)
  for p, alone in zip(np.eye(2, dtype=np.float32), (one, X)):
    variables['params']['choice'] = jnp.asarray(p)
    np.testing.assert_array_equal(net.apply(variables, X, False), alone)


def test_candidates_without_names_are_numbered():
  variables = Choice((ConvBN(3), ConvBN(3, 1))).init(KEY, X, False)
  assert sorted(variables['params']) == ['choice', 'ops_0', 'ops_1']


def test_the_mode_reaches_every_candidate():
  net = Choice((ConvBN(3, name='a'), ConvBN(3, name='b')))
  variables = net.init(KEY, X, False)
  _, new = net.apply(variables, X, True, mutable=['batch_stats'])
  for name in 'ab':
    assert bool(jnp.any(new['batch_stats'][name]['bn']['mean'] != 0))


def test_candidates_of_different_shapes_are_refused():
  class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
      return Choice((Skip(parent=None, name='skip'), ConvBN(5, parent=None, name='wide')), name='block1')(x, False)

  with pytest.raises(EffjaxError, match=r"Choice block1: candidate 'wide' gives shape \(2, 4, 4, 5\), candidate 'skip' "
                                        r'gives \(2, 4, 4, 3\): all candidates must give one shape'):
    Block().init(KEY, X)


def test_an_empty_choice_is_refused():
  with pytest.raises(EffjaxError, match=r'Choice \(top\): no candidates for an input of shape \(2, 4, 4, 3\)'):
    Choice(()).init(KEY, X, False)


def test_a_kernel_is_not_a_choice():
  with pytest.raises(EffjaxError, match=r"gumbel: wants the vector of a Choice, got an array of shape \(3, 3\): nar"):
    check_choice('gumbel', jnp.ones((3, 3)))
