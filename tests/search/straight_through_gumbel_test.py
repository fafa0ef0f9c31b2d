"""The rule of GDAS: hard draws, the gradient of the soft ones."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from effjax.errors import EffjaxError
from effjax.search.gumbel import gumbel
from effjax.search.straight_through_gumbel import straight_through_gumbel

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 10_000)
A = np.array([0.5, 2., -1.], np.float32)


def prepared(rule, dtype=jnp.float32):
  return rule.init(KEY, jnp.ones(3, dtype))._replace(phi={'logits': jnp.asarray(A, dtype)})


@pytest.mark.parametrize('temperature', [0.1, 10.])
def test_draws_are_one_hot_with_the_frequencies_of_the_facts(temperature):
  rule = straight_through_gumbel(temperature=temperature)
  slots = prepared(rule)
  draws = np.asarray(jax.jit(jax.vmap(lambda key: rule.apply(*slots, key)))(KEYS))
  assert set(np.unique(draws)) == {0., 1.} and (draws.sum(-1) == 1.).all()
  p = np.asarray(rule.facts(slots, False).choice, np.float64)
  np.testing.assert_allclose(p, special.softmax(np.float64(A)), rtol=1e-5)
  assert stats.chisquare(draws.sum(0), p / p.sum() * len(KEYS)).pvalue > 1e-3


def test_the_gradient_is_that_of_the_soft_draw_of_the_same_key():
  """dp_i / da_j = z_i (delta_ij - z_j) / T with z = softmax((a + G) / T)."""
  rule, soft = straight_through_gumbel(temperature=0.7), gumbel(temperature=0.7)
  slots = prepared(rule)
  for key in KEYS[:3]:
    z = np.asarray(soft.apply(*slots, key), np.float64)
    np.testing.assert_array_equal(rule.apply(*slots, key), np.eye(3)[z.argmax()])
    jacobian = jax.jacobian(lambda phi, key=key: rule.apply(None, phi, slots.state, key))(slots.phi)['logits']
    np.testing.assert_allclose(jacobian, (np.diag(z) - np.outer(z, z)) / 0.7, rtol=1e-4, atol=1e-6)


def test_a_schedule_of_the_temperature_moves_the_gradient_alone():
  rule = straight_through_gumbel(temperature=lambda step: jnp.where(step < 1, 5., 0.5))
  slots = prepared(rule)
  later = slots._replace(state=rule.update(slots, jnp.ones(3)))
  np.testing.assert_array_equal(rule.apply(*slots, KEY), rule.apply(*later, KEY))
  grad = lambda s: jax.grad(lambda phi: rule.apply(None, phi, s.state, KEY)[1])(s.phi)['logits']
  assert bool(jnp.any(grad(slots) != grad(later)))


def test_deployed_is_the_largest_logit_exactly_and_dtypes_are_kept():
  rule = straight_through_gumbel(temperature=3.)
  np.testing.assert_array_equal(rule.apply(*prepared(rule), None), [0., 1., 0.])
  np.testing.assert_array_equal(rule.facts(prepared(rule), True).choice, [0., 1., 0.])
  assert rule.apply(*prepared(rule, jnp.bfloat16), KEY).dtype == jnp.bfloat16


def test_a_kernel_is_refused():
  with pytest.raises(EffjaxError, match='straight_through_gumbel: wants the vector of a Choice'):
    straight_through_gumbel(temperature=1.).init(KEY, jnp.ones((2, 2)))
