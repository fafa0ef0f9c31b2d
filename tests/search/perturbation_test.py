"""Selection by perturbation on planted toys, where weights mislead."""
import itertools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.search.perturbation import perturbation

EDGES = ['cell/a', 'cell/b', 'cell/c']


def planted(seed):
  """Worths of four operators on three edges, and probabilities whose largest is the least worth."""
  worth = np.random.default_rng(seed).uniform(.5, 2., (3, 4))
  p = 1 / worth**.5
  p = p / p.sum(1, keepdims=True)
  assert (p.argmax(1) == worth.argmin(1)).all()
  choices = {edge: jnp.asarray(row, jnp.float32) for edge, row in zip(EDGES, p)}
  return worth, choices, lambda _, choices: sum((np.asarray(choices[edge]) * w).sum() for edge, w in zip(EDGES, worth))


@pytest.mark.parametrize('renormalize', [False, True])
@pytest.mark.parametrize('seed', range(4))
def test_it_finds_the_planted_operators_where_the_weights_do_not(seed, renormalize):
  worth, choices, evaluate = planted(seed)
  order = random.Random(seed).sample(EDGES, 3)
  found = perturbation(evaluate, choices, order, renormalize=renormalize)
  best = dict(zip(EDGES, worth.argmax(1).tolist()))
  assert found.operators == best and list(found.operators) == order
  assert all(int(p.argmax()) != best[edge] for edge, p in choices.items())
  for edge in EDGES:
    np.testing.assert_array_equal(found.choices[edge], np.eye(4)[best[edge]])
    assert found.choices[edge].dtype == jnp.float32


def test_skip_and_convolution_of_a_trained_supernet():
  """y = p0 skip + p1 conv: the skip is near the target and has the weight, but only the convolution can reach it."""
  rng = np.random.default_rng(0)
  target = rng.normal(size=400)
  skip, conv = target + .3 * rng.normal(size=400), 1.5 * target
  p = np.array([.7, .3])
  fit = lambda y: (y @ target / np.linalg.norm(y) / np.linalg.norm(target)) if y.any() else 0.  # a scale is free
  evaluate = lambda _, choices: fit(np.asarray(choices['edge']) @ np.stack([skip, conv]))
  found = perturbation(evaluate, {'edge': jnp.asarray(p, jnp.float32)}, ['edge'])
  assert found.operators == {'edge': 1} and found.scores['edge'][1] < found.scores['edge'][0]


@pytest.mark.parametrize('renormalize', [False, True])
def test_what_is_evaluated(renormalize):
  """Every operator is removed once, of an edge at a time, while earlier edges are one-hot and later ones soft."""
  seen = []

  def evaluate(state, choices):
    seen.append((state, {edge: np.asarray(p) for edge, p in choices.items()}))
    return float(choices['a'][0] + choices['b'][1])

  a, b = np.array([.5, .5], np.float32), np.array([.25, .5, .25], np.float32)
  choices = {'a': jnp.asarray(a), 'b': jnp.asarray(b)}
  found = perturbation(evaluate, choices, ['b', 'a'], tune=lambda state, edge, op: state + [(edge, op)], state=[],
                       renormalize=renormalize)
  assert found.operators == {'b': 1, 'a': 0} and found.state == [('b', 1), ('a', 0)]
  scale = (lambda p: p / p.sum()) if renormalize else (lambda p: p)
  expected = [([], a, scale(b * m)) for m in 1 - np.eye(3)] + [([('b', 1)], scale(a * m), np.eye(3)[1]) for m in 1 - np.eye(2)]
  for (state, got), (state_then, a_then, b_then) in zip(seen, expected, strict=True):
    assert state == state_then
    np.testing.assert_allclose(got['a'], a_then, rtol=1e-6)
    np.testing.assert_allclose(got['b'], b_then, rtol=1e-6)
  np.testing.assert_array_equal(choices['b'], b)  # the caller's stay


def test_what_is_decided_changes_what_comes_after():
  """Two edges that must differ: whichever is asked first takes the better operator, the other what is left."""
  table = {(0, 0): 0., (0, 1): 3., (1, 0): 2., (1, 1): 0.}

  def evaluate(_, choices):
    a, b = np.asarray(choices['a']), np.asarray(choices['b'])
    return sum(a[i] * b[j] * table[i, j] for i, j in itertools.product(range(2), range(2)))

  choices = {'a': jnp.array([.4, .6]), 'b': jnp.array([.6, .4])}
  assert perturbation(evaluate, choices, ['a', 'b']).operators == {'a': 1, 'b': 0}
  tuned = lambda state, choices: evaluate(None, choices) * state['sign']
  flip = lambda state, edge, op: {'sign': -state['sign']}
  assert perturbation(tuned, choices, ['a', 'b'], tune=flip, state={'sign': 1}).operators == {'a': 1, 'b': 1}


def test_ties_edges_left_soft_and_single_operators():
  choices = {'a': jnp.array([.2, .8]), 'b': jnp.array([1.]), 'c': jnp.array([0., 1.], jnp.bfloat16)}
  found = perturbation(lambda _, choices: 0., choices, ['b', 'c'], renormalize=True)
  assert found.operators == {'b': 0, 'c': 0} and found.choices['c'].dtype == jnp.bfloat16
  np.testing.assert_array_equal(found.choices['a'], choices['a'])


def test_evaluate_may_be_compiled_and_is_traced_once():
  traces = []

  @jax.jit
  def evaluate(state, choices):
    traces.append(1)
    return state * sum(p @ jnp.arange(3.) for p in choices.values())

  choices = {edge: jnp.full(3, 1 / 3) for edge in EDGES}
  found = perturbation(evaluate, choices, EDGES, tune=lambda state, edge, op: state * 2, state=jnp.float32(1.))
  assert found.operators == dict.fromkeys(EDGES, 2) and float(found.state) == 8 and len(traces) == 1


def test_errors():
  one = {'a': jnp.ones(2), 'k': jnp.ones((2, 2))}
  zero = lambda state, choices: 0.
  with pytest.raises(EffjaxError, match=r"perturbation: order names \['b'\], known are \['a', 'k'\]: name each as in cho"):
    perturbation(zero, one, ['a', 'b'])
  with pytest.raises(EffjaxError, match=r"perturbation: order names \['a'\] more than once: name each edge once"):
    perturbation(zero, one, ['a', 'a'])
  with pytest.raises(EffjaxError, match=r"perturbation: 'k' has shape \(2, 2\): wants the vector of a Choice"):
    perturbation(zero, one, ['k'])
  with pytest.raises(EffjaxError, match="perturbation: the score of 'a' without operator 0 is nan: wants a finite number"):
    perturbation(lambda state, choices: float('nan'), one, ['a'])
