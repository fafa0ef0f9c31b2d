"""Relaxed choices against closed forms: frequencies, distribution functions, point masses."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from effjax import relax
from effjax.errors import EffjaxError

KEY = jax.random.key(11)
P = np.array([0.5, 0.3, 0.15, 0.05])
DRAWS = 20_000
KEYS = jax.random.split(KEY, DRAWS)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=6), st.floats(0.125, 8., width=32))
def test_softmax_is_the_closed_form(logits, temperature):
  p = relax.softmax(jnp.asarray(logits, jnp.float32), temperature)
  np.testing.assert_allclose(p, special.softmax(np.float64(logits) / temperature), rtol=2e-5, atol=1e-7)


def draws(temperature):
  return np.asarray(jax.jit(jax.vmap(lambda key: relax.gumbel_softmax(key, jnp.log(jnp.asarray(P, jnp.float32)),
                                                                      temperature)))(KEYS))


@pytest.mark.parametrize('temperature', [0.1, 1., 10.])
def test_the_argmax_of_a_gumbel_softmax_has_the_right_frequencies(temperature):
  """Chi-square with 3 degrees of freedom; the seed is fixed, so this is a statement about it, at 0.1 %."""
  counts = np.bincount(draws(temperature).argmax(-1), minlength=4)
  assert stats.chisquare(counts, P * DRAWS).pvalue > 1e-3


@pytest.mark.parametrize('temperature', [0.5, 1., 2.])
def test_two_choices_have_the_closed_distribution(temperature):
  """P(z_1 <= z) = sigmoid(T logit(z) - log(p_1 / p_2)) (SNAS, survey [97])."""
  logits = jnp.log(jnp.array([0.7, 0.3]))
  z = jax.vmap(lambda key: relax.gumbel_softmax(key, logits, temperature))(KEYS[:5000])[:, 0]
  z = np.clip(np.float64(z), 1e-7, 1 - 1e-7)
  cdf = lambda value: special.expit(temperature * special.logit(value) - np.log(0.7 / 0.3))
  assert stats.kstest(z, cdf).pvalue > 1e-3


def test_the_limits_of_temperature():
  np.testing.assert_allclose(draws(0.01).mean(0), P, atol=0.02)  # E[z] -> p
  assert draws(0.01).max(-1).mean() > 0.98                       # one-hot
  np.testing.assert_allclose(draws(1e4), 0.25, atol=1e-2)        # uniform


def test_straight_through_is_a_one_hot_with_derivative_one():
  p, t = jnp.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), jnp.arange(6.).reshape(2, 3)
  y, dy = jax.jvp(relax.straight_through, (p,), (t,))
  np.testing.assert_array_equal(y, [[0., 1., 0.], [1., 0., 0.]])
  np.testing.assert_array_equal(dy, t)
  np.testing.assert_array_equal(jax.vjp(relax.straight_through, p)[1](t)[0], t)


LOG_ALPHA = np.array([-4., -1., 0., 1., 4.])


def test_hard_concrete_masses_at_zero_and_one():
  """P(z = 0) = sigmoid(T log(-l/h) - a), P(z = 1) = sigmoid(a - T log((1-l)/(h-1))) (Louizos et al., eq. 11, 12)."""
  t, low, high = 2 / 3, -0.1, 1.1
  z = jax.vmap(lambda key: relax.hard_concrete(key, jnp.asarray(LOG_ALPHA, jnp.float32)))(KEYS)
  zero = special.expit(t * np.log(-low / high) - LOG_ALPHA)
  one = special.expit(LOG_ALPHA - t * np.log((1 - low) / (high - 1)))
  deviation = 4 * np.sqrt(0.25 / DRAWS)
  np.testing.assert_allclose((np.asarray(z) == 0).mean(0), zero, atol=deviation)
  np.testing.assert_allclose((np.asarray(z) == 1).mean(0), one, atol=deviation)
  np.testing.assert_allclose(relax.hard_concrete_open(jnp.asarray(LOG_ALPHA, jnp.float32)), 1 - zero, rtol=1e-5)


def test_hard_concrete_between_its_ends_has_the_stretched_distribution():
  t, low, high, a = 0.5, -0.2, 1.3, 0.7
  z = jax.vmap(lambda key: relax.hard_concrete(key, jnp.asarray(a), temperature=t, low=low, high=high))(KEYS)
  for value in (0.1, 0.5, 0.9):
    expected = special.expit(t * special.logit((value - low) / (high - low)) - a)
    assert abs((np.asarray(z) <= value).mean() - expected) < 4 * np.sqrt(0.25 / DRAWS)


def test_the_test_time_gate_and_its_gradient():
  z = lambda a: relax.hard_concrete(None, a)
  expected = np.clip(special.expit(LOG_ALPHA) * 1.2 - 0.1, 0., 1.)
  np.testing.assert_allclose(z(jnp.asarray(LOG_ALPHA, jnp.float32)), expected, rtol=1e-6, atol=1e-7)
  slope = np.where(np.abs(LOG_ALPHA) < 2, 1.2 * special.expit(LOG_ALPHA) * special.expit(-LOG_ALPHA), 0.)
  np.testing.assert_allclose(jax.vmap(jax.grad(z))(jnp.asarray(LOG_ALPHA, jnp.float32)), slope, rtol=1e-5)


@pytest.mark.parametrize('wrong', [{'low': 0.}, {'high': 1.}, {'temperature': 0.}])
def test_a_wrong_stretch_is_refused(wrong):
  with pytest.raises(EffjaxError, match='hard_concrete: wants low < 0, high > 1 and temperature > 0, got low='):
    relax.hard_concrete(None, jnp.zeros(1), **wrong)
  with pytest.raises(EffjaxError, match='the defaults of the paper are -0.1, 1.1 and 2/3'):
    relax.hard_concrete_open(jnp.zeros(1), **wrong)


@pytest.mark.parametrize('f', [
    lambda x: relax.softmax(x, 0.5), lambda x: relax.gumbel_softmax(KEY, x, 0.5), relax.straight_through,
    lambda x: relax.hard_concrete(KEY, x), relax.hard_concrete_open])
def test_dtype_is_kept(f):
  assert f(jnp.zeros(4, jnp.bfloat16)).dtype == jnp.bfloat16
