"""REINFORCE: log-probabilities, the sign, the baseline. Against exact gradients: estimators_test.py."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from effjax.errors import EffjaxError
from effjax.search.score_function import baseline, log_probability, score_function

KEY = jax.random.key(5)
LOGITS = {'a': jnp.array([0.5, -1., 0.]), 'b': jnp.array([[0., 1.], [2., 0.]])}
P = [special.softmax(np.float64(a)) for a in (LOGITS['a'], *LOGITS['b'])]


def every_draw():
  """The twelve draws as one-hots, their probabilities, and a reward for each."""
  places = list(itertools.product(range(3), range(2), range(2)))
  draws = {'a': jnp.stack([jnp.eye(3)[i] for i, _, _ in places]),
           'b': jnp.stack([jnp.eye(2)[jnp.array([j, k])] for _, j, k in places])}
  p = np.array([P[0][i] * P[1][j] * P[2][k] for i, j, k in places])
  return draws, p, np.random.default_rng(0).normal(50., 10., len(places)).astype(np.float32)


def test_the_log_probability_sums_over_choices():
  draws, p, _ = every_draw()
  np.testing.assert_allclose(jax.vmap(lambda d: log_probability(LOGITS, d))(draws), np.log(p), rtol=1e-5)
  assert np.isclose(p.sum(), 1.)


def test_the_exact_average_over_all_draws_is_the_gradient_of_the_expected_reward_whatever_the_baseline():
  """sum_d P(d) grad log P(d) (R(d) - b): in `score_function` rewards of m P(d) R(d) weigh the draws so, if b = 0."""
  draws, p, rewards = every_draw()
  expected = lambda logits: jnp.sum(jnp.exp(jax.vmap(lambda d: log_probability(logits, d))(draws)) * rewards)
  exact = jax.grad(expected)(LOGITS)
  for b in (0., 37.):
    weighed = jnp.asarray(len(p) * p * (rewards - b), jnp.float32)
    estimate = score_function(LOGITS, draws, weighed, baseline())[0]
    for name in LOGITS:
      np.testing.assert_allclose(estimate[name], exact[name], rtol=1e-3, atol=2e-4)


def test_following_it_upwards_finds_the_best_draw():
  rewards = jnp.array([1., 2., 5., 3.])

  def step(carry, key):
    logits, state = carry
    draws = jnp.eye(4)[jax.random.categorical(key, logits, shape=(8,))]
    gradient, state = score_function(logits, draws, draws @ rewards, state)
    return (logits + 0.3 * gradient, state), None

  (logits, _), _ = jax.jit(lambda: jax.lax.scan(step, (jnp.zeros(4), baseline()), jax.random.split(KEY, 200)))()
  assert float(jax.nn.softmax(logits)[2]) > 0.95


def test_the_baseline_is_the_weighted_mean_of_earlier_rewards_only():
  rewards = np.random.default_rng(1).normal(3., 1., (6, 2)).astype(np.float32)
  draws, state = jnp.eye(2), baseline()
  grad_log = np.array([[0.5, -0.5], [-0.5, 0.5]])  # of the two draws, at equal logits
  for t, r in enumerate(rewards):
    weights = 0.8**np.arange(t)[::-1]
    b = weights @ rewards[:t].mean(-1) / weights.sum() if t else 0.
    estimate, state = score_function(jnp.zeros(2), draws, jnp.asarray(r), state, decay=0.8)
    np.testing.assert_allclose(estimate, ((r - b)[:, None] * grad_log).mean(0), rtol=1e-4, atol=1e-6)
  assert int(state.step) == 6 and not any(x.weak_type for x in state)


def test_constant_rewards_give_no_gradient_after_the_first_call():
  one = jnp.eye(2)[:1]
  first, state = score_function(jnp.zeros(2), one, jnp.array([4.]), baseline())
  second, _ = score_function(jnp.zeros(2), one, jnp.array([4.]), state)
  np.testing.assert_allclose(first, [2., -2.])
  np.testing.assert_allclose(second, 0., atol=1e-5)


def test_another_policy_takes_its_own_log_probability():
  """A Gaussian of mean mu: grad log P(x) = x - mu."""
  x, r = jnp.array([1., -2.]), jnp.array([3., 1.])
  estimate, _ = score_function(jnp.float32(0.5), x, r, baseline(), log_prob=lambda mu, x: -0.5 * (x - mu)**2)
  np.testing.assert_allclose(estimate, np.mean((np.array([1., -2.]) - 0.5) * np.array([3., 1.])), rtol=1e-6)


def test_bfloat16_policies_keep_their_dtype():
  gradient, state = score_function(jnp.zeros(2, jnp.bfloat16), jnp.eye(2, dtype=jnp.bfloat16),
                                   jnp.ones(2, jnp.bfloat16), baseline())
  assert gradient.dtype == jnp.bfloat16 and state.average.dtype == jnp.float32


def test_errors():
  with pytest.raises(EffjaxError, match=r'score_function: draws of shape \(2, 2\) and rewards of shape \(1,\), wanted one '
                                        'reward per draw: stack both along a first axis'):
    score_function(jnp.zeros(2), jnp.eye(2), jnp.ones(1), baseline())
  with pytest.raises(EffjaxError, match=r'score_function: decay must be in \[0, 1\), got 1.0: it is the weight of the av'):
    score_function(jnp.zeros(2), jnp.eye(2), jnp.ones(2), baseline(), decay=1.)
