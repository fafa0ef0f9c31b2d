"""The independent gates of FairDARTS and the loss that closes or opens them."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from effjax.errors import EffjaxError
from effjax.search.sigmoid import sigmoid, zero_one_loss

KEY = jax.random.key(0)
A = np.array([0.5, 2., -1.], np.float32)
P = special.expit(np.float64(A))


def prepared(rule, dtype=jnp.float32):
  return rule.init(KEY, jnp.ones(3, dtype))._replace(phi={'logits': jnp.asarray(A, dtype)})


def test_gates_do_not_compete():
  """dp_i / da_j = delta_ij p_i (1 - p_i)."""
  rule = sigmoid()
  slots = prepared(rule)
  np.testing.assert_allclose(rule.apply(*slots, KEY), P, rtol=1e-5)
  np.testing.assert_array_equal(rule.facts(slots, False).choice, rule.apply(*slots, KEY))
  jacobian = jax.jacobian(lambda phi: rule.apply(None, phi, slots.state, KEY))(slots.phi)['logits']
  np.testing.assert_allclose(jacobian, np.diag(P * (1 - P)), rtol=1e-5)


def test_deployed_is_the_largest_logit_even_if_every_gate_is_nearly_shut():
  rule = sigmoid()
  np.testing.assert_array_equal(rule.apply(*prepared(rule), None), [0., 1., 0.])
  shut = prepared(rule)._replace(phi={'logits': jnp.array([-9., -8., -7.])})
  np.testing.assert_array_equal(rule.facts(shut, True).choice, [0., 0., 1.])
  assert rule.apply(*prepared(rule, jnp.bfloat16), KEY).dtype == jnp.bfloat16


def test_the_zero_one_loss_and_its_gradient():
  value, gradient = jax.value_and_grad(zero_one_loss)(jnp.asarray(A))
  np.testing.assert_allclose(value, -np.mean((P - 0.5)**2), rtol=1e-5)
  np.testing.assert_allclose(gradient, -2 / 3 * (P - 0.5) * P * (1 - P), rtol=1e-5)


def test_a_tree_of_choices_counts_every_gate_once():
  tree = {'block1': {'logits': jnp.asarray(A)}, 'block2': {'logits': jnp.zeros(5)}}
  np.testing.assert_allclose(zero_one_loss(tree), -np.sum((P - 0.5)**2) / 8, rtol=1e-5)


def test_descent_drives_every_gate_to_zero_or_one_and_leaves_the_middle():
  step = lambda a, _: (a - 30. * jax.grad(zero_one_loss)(a), None)
  end = jax.nn.sigmoid(jax.lax.scan(step, jnp.array([0.4, -0.4, 0.]), length=200)[0])
  np.testing.assert_allclose(end, [1., 0., 0.5], atol=0.02)


def test_a_kernel_is_refused():
  with pytest.raises(EffjaxError, match='sigmoid: wants the vector of a Choice'):
    sigmoid().init(KEY, jnp.ones((2, 2)))
