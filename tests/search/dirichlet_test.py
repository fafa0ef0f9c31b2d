"""The Dirichlet rule of DrNAS: the distribution, the pathwise gradient, the anchor."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from effjax.errors import EffjaxError
from effjax.search.dirichlet import anchor_distance, concentration, dirichlet

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 4000)
B = np.array([1., -0.7, 0.2], np.float32)
C = np.where(B > 0, B + 1., np.exp(np.float64(B)))


def prepared(rule, b=B, dtype=jnp.float32):
  return rule.init(KEY, jnp.ones(3, dtype))._replace(phi={'logits': jnp.asarray(b, dtype)})


@jax.jit
def draws_and_jacobians(slots):
  """p [keys, 3] and dp_i / db_j [keys, 3, 3]."""
  def one(key):
    twice = lambda phi: (dirichlet().apply(None, phi, slots.state, key),) * 2
    jacobian, p = jax.jacobian(twice, has_aux=True)(slots.phi)
    return p, jacobian['logits']

  return jax.vmap(one)(KEYS)


def test_concentrations_are_elu_plus_one_and_positive():
  b = np.array([-30., -3., -1e-3, 0., 2.], np.float32)
  np.testing.assert_allclose(concentration(jnp.asarray(b)), np.where(b > 0, b + 1., np.exp(np.float64(b))), rtol=1e-5)
  np.testing.assert_allclose(jax.vmap(jax.grad(concentration))(jnp.asarray(b)), np.exp(np.minimum(b, 0.)), rtol=1e-5)


def test_marginals_are_beta_distributed_around_the_facts():
  """p_i ~ Beta(c_i, sum(c) - c_i)."""
  slots = prepared(dirichlet())
  draws = np.asarray(draws_and_jacobians(slots)[0], np.float64)
  np.testing.assert_allclose(draws.sum(-1), 1., atol=1e-6)
  np.testing.assert_allclose(dirichlet().facts(slots, False).choice, C / C.sum(), rtol=1e-5)
  for i in range(3):
    assert stats.kstest(draws[:, i], stats.beta(C[i], C.sum() - C[i]).cdf).pvalue > 1e-3


def test_one_draws_gradient_is_the_implicit_derivative_of_gammas():
  """dp_i / dc_j = (delta_ij - p_i) dg_j / dc_j / sum(g), dg/dc = -(dF/dc) / F', by differences in float64."""
  draws, jacobians = draws_and_jacobians(prepared(dirichlet()))
  gammas = np.asarray(jnp.exp(jax.random.loggamma(KEYS[0], jnp.asarray(C, jnp.float32))), np.float64)
  p = gammas / gammas.sum()
  np.testing.assert_allclose(draws[0], p, rtol=1e-4)
  slope = -(special.gammainc(C + 1e-5, gammas) - special.gammainc(C - 1e-5, gammas)) / 2e-5 / stats.gamma(C).pdf(gammas)
  expected = (np.eye(3) - p[:, None]) * slope / gammas.sum() * np.exp(np.minimum(B, 0.))
  np.testing.assert_allclose(jacobians[0], expected, rtol=1e-3, atol=1e-5)


def test_the_gradient_is_unbiased():
  """E[p_1^2] = c_1 (c_1 + 1) / (s (s + 1)), s = sum(c); |z| < 4 for each of its derivatives."""
  draws, jacobians = (np.asarray(x, np.float64) for x in draws_and_jacobians(prepared(dirichlet())))
  estimates = 2 * draws[:, :1] * jacobians[:, 0]
  moment = lambda c: c[0] * (c[0] + 1) / (c.sum() * (c.sum() + 1))
  exact = np.array([(moment(C + d) - moment(C - d)) / 2e-5 for d in 1e-5 * np.eye(3)]) * np.exp(np.minimum(B, 0.))
  z = (estimates.mean(0) - exact) / (estimates.std(0) / np.sqrt(len(estimates)))
  assert np.abs(z).max() < 4.


@pytest.mark.parametrize('b', [[-12., 300., -5.], [-9., -9., -9.]])
def test_extreme_concentrations_stay_finite(b):
  draws, jacobians = draws_and_jacobians(prepared(dirichlet(), b))
  assert bool(jnp.isfinite(draws).all()) and bool(jnp.isfinite(jacobians).all())
  np.testing.assert_allclose(draws.sum(-1), 1., atol=1e-5)


def test_deployed_is_the_largest_exactly_and_dtypes_are_kept():
  rule = dirichlet()
  np.testing.assert_array_equal(rule.apply(*prepared(rule), None), [1., 0., 0.])
  np.testing.assert_array_equal(rule.facts(prepared(rule), True).choice, [1., 0., 0.])
  assert rule.apply(*prepared(rule, dtype=jnp.bfloat16), KEY).dtype == jnp.bfloat16


def test_the_distance_to_the_anchor_and_its_gradient():
  value, gradient = jax.value_and_grad(anchor_distance)({'block1': jnp.asarray(B), 'block2': jnp.zeros(2)})
  np.testing.assert_allclose(value, ((C - 1)**2).sum(), rtol=1e-5)
  np.testing.assert_allclose(gradient['block1'], 2 * (C - 1) * np.exp(np.minimum(B, 0.)), rtol=1e-4)
  np.testing.assert_array_equal(gradient['block2'], 0.)


def test_a_kernel_is_refused():
  with pytest.raises(EffjaxError, match='dirichlet: wants the vector of a Choice'):
    dirichlet().init(KEY, jnp.ones((2, 2)))
