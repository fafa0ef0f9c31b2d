"""A softmax whose logits take the gradient by the probabilities: gradient descent on it is exponentiated gradient."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from effjax.errors import EffjaxError
from effjax.search.exponentiated_gradient import exponentiated_gradient
from effjax.search.mirror_softmax import mirror_softmax

KEY = jax.random.key(0)
A = np.array([0.5, 2., -1.], np.float32)
W = jnp.array([1., -2., 0.5])


def prepared(rule, dtype=jnp.float32):
  return rule.init(KEY, jnp.ones(3, dtype))._replace(phi={'logits': jnp.asarray(A, dtype)})


def test_a_softmax_with_derivative_one_in_apply_and_facts():
  rule = mirror_softmax()
  slots = prepared(rule)
  for f in (lambda phi: rule.apply(None, phi, slots.state, KEY),
            lambda phi: rule.facts(slots._replace(phi=phi), False).choice):
    np.testing.assert_allclose(f(slots.phi), special.softmax(np.float64(A)), rtol=1e-5)
    np.testing.assert_array_equal(jax.jacobian(f)(slots.phi)['logits'], np.eye(3))


def test_gradient_descent_on_the_logits_is_the_exponentiated_gradient_of_the_probabilities():
  rule, loss = mirror_softmax(), lambda p: jnp.sum(jnp.sin(3. * p) * W)
  slots, by_logits, by_p = prepared(rule), optax.sgd(0.2), exponentiated_gradient(0.2)
  phi, p = slots.phi, rule.apply(*slots, KEY)
  states = by_logits.init(phi), by_p.init(p)

  @jax.jit
  def step(phi, p, states):
    g = jax.grad(lambda phi: loss(rule.apply(None, phi, slots.state, KEY)))(phi)
    u, first = by_logits.update(g, states[0])
    v, second = by_p.update(jax.grad(loss)(p), states[1], p)
    return optax.apply_updates(phi, u), optax.apply_updates(p, v), (first, second)

  for _ in range(30):
    phi, p, states = step(phi, p, states)
    np.testing.assert_allclose(rule.apply(None, phi, slots.state, KEY), p, rtol=1e-4)
  assert float(jnp.abs(p - rule.apply(*slots, KEY)).max()) > 0.2  # it went somewhere


def test_deployed_is_the_largest_logit_exactly_and_dtypes_are_kept():
  rule = mirror_softmax()
  np.testing.assert_array_equal(rule.apply(*prepared(rule), None), [0., 1., 0.])
  np.testing.assert_array_equal(rule.facts(prepared(rule), True).choice, [0., 1., 0.])
  assert rule.apply(*prepared(rule, jnp.bfloat16), KEY).dtype == jnp.bfloat16


def test_a_kernel_is_refused():
  with pytest.raises(EffjaxError, match='mirror_softmax: wants the vector of a Choice'):
    mirror_softmax().init(KEY, jnp.ones((2, 2)))
