"""Every estimator of the gradient of an expected accuracy against the exact one, on tables of all architectures.

With independent choices `E_p[accuracy]` is the table contracted with one probability vector per choice: the multilinear
extension of the table, whose gradient by the logits is exact. Every key is fixed, so a bound on |z| is a statement
about these draws; 4 standard errors are exceeded by one of 30 coordinates once in 500 correct estimators.
"""
import functools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from effjax.reparam import at
from effjax.search.binary_gates import binary_gates
from effjax.search.gumbel import gumbel
from effjax.search.mirror_softmax import mirror_softmax
from effjax.search.score_function import Baseline, baseline, score_function
from effjax.search.softmax import softmax
from effjax.search.straight_through_gumbel import straight_through_gumbel

FOLDER = pathlib.Path(__file__).parents[2] / '../shared/data/nas'
NAMES = 'nasbench201', 'nasbench_macro'
has = lambda name: pytest.mark.skipif(not (FOLDER / f'{name}.npz').is_file(), reason=f'no {name}.npz in {FOLDER}')
both = pytest.mark.parametrize('name', [pytest.param(name, marks=has(name)) for name in NAMES])
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 4000)


class Space(NamedTuple):
  """Accuracies and costs of all architectures, one axis per choice; logits of the policy that is tested, [e, k]."""
  accuracy: np.ndarray
  costs: dict
  logits: np.ndarray


@functools.cache
def space(name):
  with np.load(FOLDER / f'{name}.npz') as file:
    data = dict(file)
  n, choices = data['arch'].max() + 1, data['arch'].shape[1]

  def table(values):
    made = np.full((n,) * choices, np.nan)
    made[tuple(data['arch'].T)] = values
    assert not np.isnan(made).any()
    return made

  if name == 'nasbench201':
    accuracy = data['accuracy'][:, list(data['accuracy_columns']).index('c100_test')]
    costs = {device: data['latency_ms'][:, list(data['devices']).index(device)] for device in ('fpga', 'eyeriss')}
  else:
    accuracy, costs = data['acc3'].mean(1), {'params': data['params'], 'flops': data['flops']}
  logits = np.random.default_rng(0).normal(size=(choices, n)).astype(np.float32)
  return Space(table(accuracy), {cost: table(values) for cost, values in costs.items()}, logits)


def contracted(values, p, skip=None):
  """`values` summed over every axis (but one) with the probabilities of its choice, in float64."""
  for axis in reversed(range(values.ndim)):
    values = values if axis == skip else np.tensordot(values, p[axis], (axis, 0))
  return values


def exact(values, p):
  """The gradient of `E_p` by p: `dE/dp_e` is the table contracted over all other choices."""
  return np.array([contracted(values, p, e) for e in range(values.ndim)])


def by_logits(values, logits):
  """`dE/da_i = p_i (dE/dp_i - sum_j p_j dE/dp_j)`."""
  p = special.softmax(np.float64(logits), -1)
  d = exact(values, p)
  return p * (d - np.sum(p * d, -1, keepdims=True))


def gradients(rule, name, steps=(0,)):
  """One estimate per key, [keys, e, k], at each step: the multilinear extension, differentiated through the draws."""
  values, logits = space(name).accuracy, jnp.asarray(space(name).logits)
  reparam, half = at('choices', rule, stacked=True), len(logits) // 2
  slots = reparam.init(KEY, {'choices': logits})
  table = jnp.asarray(values.reshape(logits.shape[1]**half, -1), jnp.float32)
  joint = lambda p: functools.reduce(lambda a, b: jnp.outer(a, b).ravel(), p)

  def objective(logits, step, key):
    state = {'choices': {'step': jnp.full(len(logits), step)}}
    p = reparam.apply(slots.theta, {'choices': {'logits': logits}}, state, key)['choices']
    return joint(p[:half]) @ table @ joint(p[half:])

  each = jax.jit(jax.vmap(jax.grad(objective), (None, None, 0)))
  return [np.asarray(each(logits, jnp.int32(step), KEYS), np.float64) for step in steps]


def z_scores(draws, expected):
  return (draws.mean(0) - expected) / (draws.std(0) / np.sqrt(len(draws)))


def distance(draws, expected):
  return np.linalg.norm(draws.mean(0) - expected) / np.linalg.norm(expected)


@both
def test_binary_gates_are_unbiased(name):
  (draws,), expected = gradients(binary_gates(), name), by_logits(space(name).accuracy, space(name).logits)
  assert np.abs(z_scores(draws, expected)).max() < 4.
  assert distance(draws, expected) < 0.05  # the bound above says something


@has('nasbench201')
@pytest.mark.parametrize('rule', [gumbel, straight_through_gumbel])
def test_concrete_draws_are_biased_and_unbiased_only_in_the_limit_of_temperature(rule):
  """Their variance grows while the bias goes: at T = 0.1 no bias is seen any more, at T = 2 it is half the gradient."""
  expected = by_logits(space('nasbench201').accuracy, space('nasbench201').logits)
  temperature = lambda step: jnp.where(step < 1, 2., 0.1)
  warm, cold = gradients(rule(temperature=temperature), 'nasbench201', steps=(0, 1))
  assert np.abs(z_scores(warm, expected)).max() > 50. and distance(warm, expected) > 0.4
  assert np.abs(z_scores(cold, expected)).max() < 4. and distance(cold, expected) < 0.15
  assert cold.var(0).sum() > 10 * warm.var(0).sum()


@both
def test_score_functions_are_unbiased_and_a_baseline_cuts_their_variance(name):
  values, logits = space(name).accuracy, jnp.asarray(space(name).logits)
  choices, n = logits.shape
  table = jnp.asarray(values, jnp.float32)

  def estimate(key, state):
    drawn = jax.random.categorical(key, logits)
    return score_function(logits, jax.nn.one_hot(drawn, n)[None], table[tuple(drawn)][None], state)

  def trained(state):
    return jax.lax.scan(lambda state, key: (estimate(key, state)[1], None), state, jax.random.split(KEY, 300))[0]

  keys = jax.random.split(jax.random.key(1), 50_000)  # none of those that trained the baseline
  each = jax.jit(jax.vmap(lambda key, state: estimate(key, state)[0], (0, None)))
  without, with_baseline = (np.asarray(each(keys, s), np.float64) for s in (baseline(), jax.jit(trained)(baseline())))
  expected = by_logits(values, logits)
  assert np.abs(z_scores(without, expected)).max() < 4. and np.abs(z_scores(with_baseline, expected)).max() < 4.
  assert distance(with_baseline, expected) < 0.15
  assert with_baseline.var(0).sum() < 0.2 * without.var(0).sum()


@has('nasbench201')
def test_the_second_moment_at_a_baseline_has_its_closed_form():
  """`E[(grad log P)^2 (R - b)^2]`, enumerated; least near b = E[R], so that a baseline there beats none."""
  values, logits = space('nasbench201').accuracy, jnp.asarray(space('nasbench201').logits)
  table, p = jnp.asarray(values, jnp.float32), special.softmax(np.float64(logits), -1)
  mean = contracted(values, p)

  def moment(b):
    squared = exact((values - b)**2, p)  # E[(R - b)^2 | choice e takes i]
    return np.sum(p * squared * (1 - 2 * p) + p**2 * np.sum(p * squared, -1, keepdims=True))

  def estimate(key, state):
    drawn = jax.random.categorical(key, logits)
    one_hot = jax.nn.one_hot(drawn, logits.shape[1])[None]
    return jnp.sum(score_function(logits, one_hot, table[tuple(drawn)][None], state)[0]**2)

  each = jax.jit(jax.vmap(estimate, (0, None)))
  for b in (0., mean):
    state = Baseline(jnp.float32(b * (1 - 0.95**100)), jnp.int32(100))  # the average of a hundred rewards of b
    squares = np.asarray(each(jax.random.split(jax.random.key(2), 50_000), state), np.float64)
    assert abs(z_scores(squares, moment(b))) < 4.
  assert moment(mean) < 0.2 * moment(0.)


COEFFICIENTS = {  # the constant, and what each operator adds, by choice where it matters
    'fpga': (1.133, [0., 0., 0.5152, 1.2576, 0.4096]), 'eyeriss': (1.6795, [0., 0., 0.2458, 1.4746, 1.4746]),
    'params': (387_882, [(0, 8_416, 21_952), (0, 27_200, 60_416), (0, 31_168, 76_672), (0, 103_552, 219_136),
                         (0, 103_552, 219_136), (0, 119_680, 284_416), (0, 403_712, 831_488), (0, 403_712, 831_488)])}


@pytest.mark.parametrize('rule', [softmax(), mirror_softmax(), gumbel(temperature=3.), binary_gates(paths=2),
                                  straight_through_gumbel(temperature=3.)])
@pytest.mark.parametrize(('cost', 'name'), [pytest.param(cost, name, marks=has(name)) for cost, name in [
    ('fpga', NAMES[0]), ('eyeriss', NAMES[0]), ('params', NAMES[1])]])
def test_expected_costs_from_the_facts_equal_enumeration(cost, name, rule):
  """The soft fact of each rule times the coefficients is the sum over all architectures of probability times cost."""
  values, logits = space(name).costs[cost], space(name).logits
  slots = [rule.init(KEY, jnp.ones(len(a)))._replace(phi={'logits': jnp.asarray(a)}) for a in logits]
  constant, each = COEFFICIENTS[cost]
  each = np.broadcast_to(np.asarray(each, np.float64), logits.shape)
  choice = np.array([rule.facts(s, False).choice for s in slots], np.float64)
  enumerated = contracted(values, special.softmax(np.float64(logits), -1))
  np.testing.assert_allclose(constant + np.sum(choice * each), enumerated, rtol=2e-5 if name == NAMES[0] else 1e-6)


@has('nasbench_macro')
def test_expected_flops_need_only_one_change_at_a_time():
  """An additive cost: its differences at one architecture are its coefficients, exactly, in integers."""
  values, logits = space('nasbench_macro').costs['flops'], space('nasbench_macro').logits
  origin = (0,) * values.ndim
  each = np.array([[values[origin[:e] + (i,) + origin[e + 1:]] - values[origin] for i in range(3)]
                   for e in range(values.ndim)])
  rebuilt = values[origin] + sum(each[e].reshape([-1 if f == e else 1 for f in range(values.ndim)])
                                 for e in range(values.ndim))
  np.testing.assert_array_equal(rebuilt, values)
  p = special.softmax(np.float64(logits), -1)
  np.testing.assert_allclose(values[origin] + np.sum(p * each), contracted(values, p), rtol=1e-12)
