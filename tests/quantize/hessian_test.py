"""Traces against the exact Hessian, and allocations against all there are."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError

KEY = jax.random.key(1)


def quadratic(seed=0, n=6):
  a = np.random.default_rng(seed).normal(size=(n, n))
  return jnp.asarray(a + a.T, jnp.float32)


def test_a_quadratic_is_exact_in_the_mean_over_all_probes():
  hessian = np.asarray(quadratic(n=4))
  probes = np.array(list(itertools.product([-1., 1.], repeat=4)))
  assert np.mean([v[:2] @ (hessian @ v)[:2] for v in probes]) == pytest.approx(np.trace(hessian[:2, :2]), rel=1e-5)


def test_each_leaf_has_the_trace_of_its_block():
  hessian = quadratic()
  loss = lambda p: .5 * (both := jnp.concatenate([p['a'].ravel(), p['b']])) @ hessian @ both
  params = {'a': jnp.ones((2, 2)), 'b': jnp.ones(2)}
  found = jax.jit(lambda key: quantize.hessian_traces(loss, params, key, probes=20000))(KEY)
  exact = np.asarray(hessian, np.float64)
  for path, block in (('a', exact[:4]), ('b', exact[4:])):
    own = slice(0, 4) if path == 'a' else slice(4, 6)
    deviation = np.sqrt((block**2).sum() * 2 / 20000) / len(block)
    assert abs(float(found[path]) - np.trace(exact[own, own]) / len(block)) < 5 * deviation


def test_a_diagonal_hessian_needs_one_probe_and_bends_with_the_point():
  loss = lambda p: jnp.sum(p['w']**3)
  found = quantize.hessian_traces(loss, {'w': jnp.array([1., 2., 3.])}, KEY, probes=1)
  assert float(found['w']) == pytest.approx(12.)


def test_no_probe():
  with pytest.raises(EffjaxError, match='hessian_traces: probes must be at least 1, got 0'):
    quantize.hessian_traces(lambda p: p, jnp.float32(1), KEY, probes=0)


def tables(seed, layers=5, widths=(2, 4, 8)):
  random = np.random.default_rng(seed)
  names = [f'w{i}' for i in range(layers)]
  sizes = random.integers(1, 50, layers)
  errors = {name: {bits: float(random.uniform(.5, 1.5) * 4.**-bits * 100) for bits in widths} for name in names}
  costs = {name: {bits: int(size * bits) for bits in widths} for name, size in zip(names, sizes)}
  return {name: float(random.uniform(0, 3)) for name in names}, errors, costs


def foreseen(traces, errors, bits):
  return sum(traces[path] * errors[path][width] for path, width in bits.items())


@pytest.mark.parametrize('seed', range(8))
def test_it_is_the_best_of_all_allocations(seed):
  traces, errors, costs = tables(seed)
  total = lambda bits: sum(costs[path][width] for path, width in bits.items())
  every = [dict(zip(traces, widths)) for widths in itertools.product((2, 4, 8), repeat=5)]
  for part in (.3, .5, .8, 1.):
    budget = max(part * max(map(total, every)), min(map(total, every)))
    found = quantize.allocate_bits(traces, errors, costs, budget)
    best = min(foreseen(traces, errors, bits) for bits in every if total(bits) <= budget)
    assert total(found) <= budget
    assert foreseen(traces, errors, found) == pytest.approx(best, rel=1e-9)


def test_few_states_stay_within_the_budget_and_more_come_nearer():
  traces, errors, costs = tables(3, layers=12)
  total = lambda bits: sum(costs[path][width] for path, width in bits.items())
  budget = .5 * sum(table[8] for table in costs.values())
  losses = []
  for states in (4, 64, 2**14):
    found = quantize.allocate_bits(traces, errors, costs, budget, states=states)
    assert total(found) <= budget
    losses.append(foreseen(traces, errors, found))
  assert losses[2] <= losses[1] and losses[2] <= losses[0]


def test_a_tight_budget_and_one_below():
  traces, errors, costs = tables(0)
  least = sum(table[2] for table in costs.values())
  assert set(quantize.allocate_bits(traces, errors, costs, least).values()) == {2}
  with pytest.raises(EffjaxError, match=f'the budget {least - 1} cannot be met: the smallest cost .* is {least}'):
    quantize.allocate_bits(traces, errors, costs, least - 1)


def test_tables_that_do_not_belong_together():
  with pytest.raises(EffjaxError, match=r"leaf 'a' has widths \[4\] in errors, \[8\] in costs and a trace"):
    quantize.allocate_bits({'a': 1.}, {'a': {4: 1.}}, {'a': {8: 1.}}, 9)
  with pytest.raises(EffjaxError, match=r"leaf 'a' has widths \[4\] in errors, \[4\] in costs and no trace"):
    quantize.allocate_bits({}, {'a': {4: 1.}}, {'a': {4: 1.}}, 9)


def test_errors_of_rounding_fall_with_the_bits():
  w = jax.random.normal(KEY, (16, 4))
  found = quantize.rounding_errors({'w': w}, (2, 4, 8), ['w'])['w']
  assert found[2] > found[4] > found[8] > 0
  rule = quantize.lsq(4)
  expected = np.sum((np.float64(rule.apply(*rule.init(KEY, w), None)) - np.float64(w))**2)
  assert found[4] == pytest.approx(expected, rel=1e-5)
