"""Exponentiated gradient on the simplex."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax.errors import EffjaxError
from effjax.search.exponentiated_gradient import exponentiated_gradient

RNG = np.random.default_rng(0)
P = {'a': np.array([0.2, 0.5, 0.3], np.float32), 'b': np.array([[0.9, 0.1], [0.5, 0.5]], np.float32)}
G = {name: RNG.normal(size=p.shape).astype(np.float32) for name, p in P.items()}


def follow(tx, p, gradients):
  state = tx.init(p)
  for g in gradients:
    updates, state = tx.update(g, state, p)
    p = optax.apply_updates(p, updates)
  return p, state


def test_one_step_multiplies_and_normalizes_along_the_last_axis():
  p, _ = follow(exponentiated_gradient(0.7), jax.tree.map(jnp.asarray, P), [jax.tree.map(jnp.asarray, G)])
  for name in P:
    moved = np.float64(P[name]) * np.exp(-0.7 * np.float64(G[name]))
    np.testing.assert_allclose(p[name], moved / moved.sum(-1, keepdims=True), rtol=1e-5)


def test_many_steps_stay_on_the_simplex_and_equal_the_closed_form():
  """p_t is proportional to p_0 exp(-lr sum g)."""
  gradients = RNG.normal(size=(200, 3)).astype(np.float32)
  p, state = follow(exponentiated_gradient(0.1), jnp.asarray(P['a']), jnp.asarray(gradients))
  closed = np.float64(P['a']) * np.exp(-0.1 * gradients.astype(np.float64).sum(0))
  np.testing.assert_allclose(p, closed / closed.sum(), rtol=1e-4)
  assert int(state.step) == 200 and np.isclose(p.sum(), 1., atol=1e-6) and bool((p >= 0).all())


def test_the_regret_against_the_best_vertex_is_bounded():
  """sum_t g_t (p_t - e_i) <= log(n) / lr + lr t / 2 for |g| <= 1, of a learner that starts at the centre."""
  tx, p = exponentiated_gradient(0.1), jnp.full(5, 0.2)
  state, paid, total = tx.init(p), 0., np.zeros(5)
  for g in RNG.uniform(-1, 1, (100, 5)).astype(np.float32):
    paid, total = paid + float(g @ np.asarray(p)), total + g
    updates, state = tx.update(jnp.asarray(g), state, p)
    p = optax.apply_updates(p, updates)
  assert paid - total.min() <= np.log(5) / 0.1 + 0.1 * 100 / 2


def test_what_is_zero_stays_zero():
  p, _ = follow(exponentiated_gradient(1.), jnp.array([0., 0.25, 0.75]), [jnp.array([-9., 1., 1.])])
  np.testing.assert_allclose(p, [0., 0.25, 0.75], rtol=1e-6)


def test_schedules_scan_and_dtypes():
  tx = exponentiated_gradient(lambda step: jnp.where(step < 1, 0., 1.))
  start = jnp.array([0.5, 0.5], jnp.bfloat16)

  def step(carry, g):
    updates, state = tx.update(g, carry[1], carry[0])
    return (optax.apply_updates(carry[0], updates), state), carry[0]

  (p, _), before = jax.lax.scan(step, (start, tx.init(start)), jnp.array([[4., 0.], [4., 0.]], jnp.bfloat16))
  np.testing.assert_array_equal(before[1], start)
  assert p.dtype == jnp.bfloat16 and float(p[0]) < 0.05


def test_without_parameters_it_says_what_it_wants():
  tx = exponentiated_gradient(0.1)
  with pytest.raises(EffjaxError, match='exponentiated_gradient: update got no params, wants the weights that it mult'):
    tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
