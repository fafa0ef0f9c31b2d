"""The gates as a rule; their distribution is tested in relax_test.py."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from effjax.errors import EffjaxError
from effjax.sparsify import hard_concrete

KEY = jax.random.key(4)
LOG_ALPHA = jnp.array([-4., -1., -0.01, 0., 0.01, 1., 4.])


def gates(rule):
  return rule.init(KEY, jnp.ones(7))._replace(phi={'log_alpha': LOG_ALPHA})


@pytest.mark.parametrize('keep', [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize('stretch', [{}, {'temperature': 0.5, 'low': -0.2, 'high': 1.3}])
def test_gates_start_open_with_the_given_probability(keep, stretch):
  rule = hard_concrete(initial_keep=keep, **stretch)
  slots = rule.init(KEY, jnp.ones(5))
  assert slots.theta is None
  np.testing.assert_allclose(rule.facts(slots, False).keep, keep, rtol=1e-5)


def test_the_expected_number_of_open_gates():
  rule = hard_concrete()
  keys = jax.random.split(KEY, 20_000)
  z = jax.vmap(lambda key: rule.apply(*gates(rule), key))(keys)
  np.testing.assert_allclose((np.asarray(z) > 0).mean(0), rule.facts(gates(rule), False).keep, atol=0.015)


def test_deployed_gates_are_zero_or_one_and_what_the_facts_say():
  rule = hard_concrete()
  z = rule.apply(*gates(rule), None)
  np.testing.assert_array_equal(z, [0., 0., 0., 0., 1., 1., 1.])
  np.testing.assert_array_equal(rule.facts(gates(rule), True).keep, z)


def test_an_asymmetric_stretch_moves_the_threshold():
  """The paper's gate is above 1/2 where sigmoid(a) > (1/2 - low) / (high - low)."""
  rule = hard_concrete(low=-0.5, high=1.1)
  border = special.logit((0.5 + 0.5) / 1.6)
  slots = gates(rule)._replace(phi={'log_alpha': jnp.array([border - 1e-3, border + 1e-3], jnp.float32)})
  np.testing.assert_array_equal(rule.apply(*slots, None), [0., 1.])


def test_the_gradient_is_the_paths():
  """dz/da = s (1 - s) (high - low) / T where 0 < z < 1, else 0."""
  rule = hard_concrete()
  slots = gates(rule)
  u = jax.random.logistic(KEY, (7,))
  s = special.expit((np.float64(u) + np.float64(LOG_ALPHA)) * 1.5)
  z = s * 1.2 - 0.1
  grad = jax.grad(lambda phi: rule.apply(None, phi, {}, KEY).sum())(slots.phi)['log_alpha']
  np.testing.assert_allclose(grad, np.where((z > 0) & (z < 1), s * (1 - s) * 1.2 * 1.5, 0.), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('keep', [0., 1., -0.5])
def test_a_wrong_probability_is_refused(keep):
  with pytest.raises(EffjaxError, match='hard_concrete: initial_keep is a probability strictly between 0 and 1, got'):
    hard_concrete(initial_keep=keep)


def test_a_wrong_stretch_is_refused_when_the_rule_is_made():
  with pytest.raises(EffjaxError, match='hard_concrete: wants low < 0'):
    hard_concrete(low=0.)


def test_a_kernel_is_refused():
  with pytest.raises(EffjaxError, match=r'hard_concrete: wants a vector of gates, got an array of shape \(3, 3\): gate '
                                        r'channels with effjax.over\(channels, hard_concrete\(\)\)'):
    hard_concrete().init(KEY, jnp.ones((3, 3)))
