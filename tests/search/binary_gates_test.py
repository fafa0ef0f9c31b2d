"""The gates of ProxylessNAS: one path, or a pair of them, against enumeration."""
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from effjax.errors import EffjaxError
from effjax.search.binary_gates import binary_gates, rescale
from effjax.search.mixed import Mixed

KEY = jax.random.key(3)
KEYS = jax.random.split(KEY, 20_000)
A = np.array([0.5, 1.5, -1., 0.], np.float32)
P = special.softmax(np.float64(A))
W = np.array([1., -2., 4., 0.5], np.float32)  # dL/dg


class Dense(nn.Dense):
  def __call__(self, x, train):
    return super().__call__(x)


def prepared(rule, dtype=jnp.float32):
  return rule.init(KEY, jnp.ones(4, dtype))._replace(phi={'logits': jnp.asarray(A, dtype)})


def draws_and_gradients(rule):
  slots = prepared(rule)

  def one(key):
    loss = lambda phi: (rule.apply(None, phi, slots.state, key) @ W, rule.apply(None, phi, slots.state, key))
    gradient, gates = jax.grad(loss, has_aux=True)(slots.phi)
    return gates, gradient['logits']

  return [np.asarray(x, np.float64) for x in jax.jit(jax.vmap(one))(KEYS)]


def test_one_path_is_drawn_by_softmax_and_its_gradient_is_equation_4():
  gates, gradients = draws_and_gradients(binary_gates())
  assert set(np.unique(gates)) == {0., 1.} and (gates.sum(-1) == 1.).all()
  assert stats.chisquare(gates.sum(0), P * len(KEYS)).pvalue > 1e-3
  expected = [sum(W[j] * P[j] * ((i == j) - P[i]) for j in range(4)) for i in range(4)]
  np.testing.assert_allclose(gradients, np.tile(expected, (len(KEYS), 1)), rtol=1e-4, atol=1e-6)


def pairs():
  """The probability of every pair drawn without replacement, by enumeration of the order."""
  return {(i, j): P[i] * P[j] / (1 - P[i]) + P[j] * P[i] / (1 - P[j]) for i, j in itertools.combinations(range(4), 2)}


def test_two_paths_are_drawn_without_replacement_and_only_they_move():
  gates, gradients = draws_and_gradients(binary_gates(paths=2))
  tiny = float(jnp.finfo(jnp.float32).tiny)  # of the gate that is compared and shut
  assert set(np.unique(gates)) == {0., tiny, 1.} and (gates.sum(-1) == 1.).all()
  assert ((gates > 0) == (gradients != 0)).all()
  assert ((gradients != 0).sum(-1) == 2).all() and (gradients[gates == 1.] != 0).all()
  counts, opened = [], np.zeros(4)
  for (i, j), probability in pairs().items():
    chosen = (gradients[:, i] != 0) & (gradients[:, j] != 0)
    counts.append(chosen.sum())
    q = P[i] / (P[i] + P[j])
    opened[[i, j]] += probability * np.array([q, 1 - q])
    force = q * (1 - q) * (W[i] - W[j])  # equation 4 over the pair
    np.testing.assert_allclose(gradients[chosen][:, [i, j]], np.tile([force, -force], (chosen.sum(), 1)), rtol=1e-3)
  assert stats.chisquare(counts, np.array([*pairs().values()]) * len(KEYS)).pvalue > 1e-3
  assert stats.chisquare(gates.sum(0), opened * len(KEYS)).pvalue > 1e-3


@pytest.mark.parametrize('new', [[0.7, 1.5, -1., 0.9], [5., -5., -1., 0.], [0.5, 1.5, -1., 2.], list(A)])
def test_rescale_keeps_the_probability_of_what_did_not_move(new):
  new = np.array(new, np.float32)
  p, moved = special.softmax(np.asarray(rescale(jnp.asarray(A), jnp.asarray(new)), np.float64)), new != A
  np.testing.assert_allclose(p[~moved], P[~moved], rtol=1e-5)
  within = special.softmax(np.where(moved, np.float64(new), -np.inf)) * P[moved].sum() if moved.any() else P
  np.testing.assert_allclose(p[moved], within[moved], rtol=1e-5)


@pytest.mark.parametrize('paths', [1, 2])
def test_deployed_facts_and_dtypes(paths):
  rule = binary_gates(paths=paths)
  np.testing.assert_array_equal(rule.apply(*prepared(rule), None), [0., 1., 0., 0.])
  np.testing.assert_array_equal(rule.facts(prepared(rule), True).choice, [0., 1., 0., 0.])
  np.testing.assert_allclose(rule.facts(prepared(rule), False).choice, P, rtol=1e-5)
  assert rule.apply(*prepared(rule, jnp.bfloat16), KEY).dtype == jnp.bfloat16


def test_two_paths_of_a_choice_run_the_pair_and_give_the_gradient_of_the_sum():
  rule, x = binary_gates(paths=2), jax.random.normal(KEY, (2, 3))
  slots, ops = prepared(rule), lambda: tuple(Dense(3, name=f'op{i}') for i in range(4))
  variables = Mixed(ops()).init(KEY, x, jnp.ones(4), False)

  def gradients(key, paths):
    loss = lambda phi: jnp.sum(jnp.sin(Mixed(ops(), paths).apply(variables, x, rule.apply(None, phi, slots.state, key),
                                                                  False)))
    return jax.grad(loss)(slots.phi)['logits']

  run = lambda paths: jax.jit(jax.vmap(lambda key: gradients(key, paths)))(KEYS[:50])
  got, want = run(2), run(None)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
  assert ((got != 0).sum(-1) == 2).all() and len(np.unique(got != 0, axis=0)) > 3


def test_errors():
  with pytest.raises(EffjaxError, match='binary_gates: paths must be 1 or 2, got 3: one step compares all operators or'):
    binary_gates(paths=3)
  with pytest.raises(EffjaxError, match='binary_gates: wants the vector of a Choice'):
    binary_gates().init(KEY, jnp.ones((2, 2)))
  rule = binary_gates(paths=2)
  with pytest.raises(EffjaxError, match='binary_gates: paths=2 wants two operators, got 1: use paths=1'):
    rule.apply(*rule.init(KEY, jnp.ones(1)), KEY)
