"""The softmax rule of DARTS on a choice leaf."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from effjax import search
from effjax.errors import EffjaxError

KEY = jax.random.key(0)
A = np.array([0.5, 2., -1.], np.float32)


def prepared(rule):
  return rule.init(KEY, jnp.ones(3))._replace(phi={'logits': jnp.asarray(A)})


def test_probabilities_and_their_gradient():
  """dp_i / da_j = p_i (delta_ij - p_j) / T."""
  rule = search.softmax(temperature=0.5)
  slots, p = prepared(rule), special.softmax(np.float64(A) / 0.5)
  np.testing.assert_allclose(rule.apply(*slots, KEY), p, rtol=1e-5)
  np.testing.assert_allclose(rule.facts(slots, False).choice, p, rtol=1e-5)
  jacobian = jax.jacobian(lambda phi: rule.apply(None, phi, slots.state, KEY))(slots.phi)['logits']
  np.testing.assert_allclose(jacobian, (np.diag(p) - np.outer(p, p)) / 0.5, rtol=1e-4, atol=1e-7)


def test_deployed_is_a_one_hot_exactly():
  rule = search.softmax()
  np.testing.assert_array_equal(rule.apply(*prepared(rule), None), [0., 1., 0.])
  np.testing.assert_array_equal(rule.facts(prepared(rule), True).choice, [0., 1., 0.])


def test_a_schedule_is_followed():
  rule = search.softmax(temperature=lambda step: 1. / (1. + step.astype(jnp.float32)))
  slots = prepared(rule)
  for i in range(3):
    np.testing.assert_allclose(rule.apply(*slots, KEY), special.softmax(np.float64(A) * (i + 1)), rtol=1e-5)
    slots = slots._replace(state=rule.update(slots, jnp.ones(3)))


def test_a_kernel_is_refused():
  with pytest.raises(EffjaxError, match='softmax: wants the vector of a Choice'):
    search.softmax().init(KEY, jnp.ones((2, 2)))
