"""Budgets: the Karush-Kuhn-Tucker point of constrained quadratics, by closed form."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effjax.errors import EffjaxError
from effjax.reparam import Fact
from effjax.train import Budget, augmented_lagrangian, check_feasible, held, violation


def minimize(target, costs, limits, controller, steps=3000, rate=.05):
  """Gradient descent on |x - target|^2 + penalty, the multipliers following; the final x and multipliers."""
  measure = lambda x: {name: violation(costs[name](x), limits[name]) for name in costs}
  loss = lambda x, multipliers: jnp.sum((x - target) ** 2) + controller.penalty(multipliers, measure(x))

  def step(carry, _):
    x, multipliers = carry
    x = x - jnp.float32(rate) * jax.grad(loss)(x, multipliers)
    return (x, controller.update(multipliers, measure(x))), None

  (x, multipliers), _ = jax.lax.scan(step, (jnp.zeros_like(target), controller.init(costs)), None, length=steps)
  return np.asarray(x), {name: float(value) for name, value in multipliers.values.items()}


@pytest.mark.parametrize('every_steps', [1, 10])
def test_one_dimension_reaches_the_kkt_point(every_steps):
  # min (x - 2)^2 with x <= 1: 2 (x - 2) + lambda = 0 at x = 1.
  controller = augmented_lagrangian(rho=1., every_steps=every_steps)
  x, multipliers = minimize(jnp.array([2.]), {'x': lambda x: x[0]}, {'x': 1.}, controller)
  np.testing.assert_allclose(x, [1.], atol=1e-4)
  np.testing.assert_allclose(multipliers['x'], 2., atol=1e-3)


def test_several_budgets_at_once_one_of_them_inactive():
  # min |x - (3, 2)|^2 with x0 <= 1, x0 + x1 <= 2, x1 <= 10. At (1, 1): -4 + l0 + l1 / 2 = 0, -2 + l1 / 2 = 0.
  costs = {'first': lambda x: x[0], 'sum': lambda x: x[0] + x[1], 'loose': lambda x: x[1]}
  limits = {'first': 1., 'sum': 2., 'loose': 10.}
  x, multipliers = minimize(jnp.array([3., 2.]), costs, limits, augmented_lagrangian(rho=1., every_steps=5))
  np.testing.assert_allclose(x, [1., 1.], atol=1e-4)
  np.testing.assert_allclose([multipliers[name] for name in costs], [2., 4., 0.], atol=1e-3)


def test_an_inactive_budget_leaves_the_solution_unconstrained():
  x, multipliers = minimize(jnp.array([2.]), {'x': lambda x: x[0]}, {'x': 3.}, augmented_lagrangian())
  np.testing.assert_allclose(x, [2.], atol=1e-5)
  assert multipliers['x'] == 0.


def test_strength_may_warm_up_from_zero():
  ramp = lambda step: jnp.minimum(step.astype(jnp.float32) / jnp.float32(500.), jnp.float32(1.))
  controller = augmented_lagrangian(rho=ramp, every_steps=1)
  x, multipliers = minimize(jnp.array([2.]), {'x': lambda x: x[0]}, {'x': 1.}, controller)
  np.testing.assert_allclose([x[0], multipliers['x']], [1., 2.], atol=1e-3)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 10), st.floats(-3, 3), st.floats(.01, 10))
def test_penalty_and_its_gradient_follow_the_paper(multiplier, g, rho):
  controller = augmented_lagrangian(rho=rho, every_steps=1)
  multipliers = controller.init(['c'])._replace(values={'c': jnp.float32(multiplier)})
  value, slope = jax.value_and_grad(lambda g: controller.penalty(multipliers, {'c': g}))(jnp.float32(g))
  expected = (max(0., multiplier + rho * g) ** 2 - multiplier ** 2) / (2 * rho)
  np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(slope, max(0., multiplier + rho * g), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(controller.update(multipliers, {'c': jnp.float32(g)}).values['c'],
                             max(0., multiplier + rho * g), rtol=1e-4, atol=1e-5)


def test_multipliers_move_every_so_many_steps_only_and_stay_strongly_typed():
  controller = augmented_lagrangian(rho=1., every_steps=3)
  multipliers, seen = controller.init(['c']), []
  for _ in range(6):
    new = controller.update(multipliers, {'c': jnp.float32(.5)})
    chex.assert_trees_all_equal_shapes_and_dtypes(new, multipliers)
    assert not any(x.weak_type for x in jax.tree.leaves(new))
    multipliers = new
    seen.append(float(multipliers.values['c']))
  assert seen == [0., 0., .5, .5, .5, 1.]


def test_limits_that_tighten_reach_the_same_point():
  controller = augmented_lagrangian(rho=1., every_steps=5, tighten_steps=1000)
  x, multipliers = minimize(jnp.array([2.]), {'x': lambda x: 1. + x[0]}, {'x': 2.}, controller)
  np.testing.assert_allclose([x[0], multipliers['x']], [1., 4.], atol=1e-3)


def test_limits_tighten_from_the_first_cost_along_a_geometric_line():
  # From 8 at the limit of 2, in 4 steps: 8, 5.66, 4, 2.83, 2. The penalty of g at multiplier 0 is g^2 / 2.
  controller = augmented_lagrangian(rho=1., every_steps=10, tighten_steps=4)
  multipliers, measured = controller.init(['c']), []
  for _ in range(6):
    measured.append(float(controller.penalty(multipliers, {'c': jnp.float32(3.)})))
    multipliers = controller.update(multipliers, {'c': jnp.float32(3.)})
  g = np.array([8 / max(8 * 4 ** (-t / 4), 2) - 1 for t in range(6)])
  np.testing.assert_allclose(measured, g ** 2 / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('restarts', 'after'), [(False, [.5, 1., .75, 1.]), (True, [.5, 1., 0., .25])])
def test_a_multiplier_restarts_where_its_limit_is_met(restarts, after):
  controller = augmented_lagrangian(rho=1., every_steps=1, restarts=restarts)
  multipliers, seen = controller.init(['c', 'd']), []
  for g in (.5, .5, -.25, .25):
    multipliers = controller.update(multipliers, {'c': jnp.float32(g), 'd': jnp.float32(1.)})
    seen.append(float(multipliers.values['c']))
  assert seen == after and float(multipliers.values['d']) == 4.


def test_between_updates_a_multiplier_does_not_restart():
  controller = augmented_lagrangian(rho=1., every_steps=2, restarts=True)
  multipliers = controller.init(['c'])._replace(values={'c': jnp.float32(1.)})
  multipliers = controller.update(multipliers, {'c': jnp.float32(-.5)})
  assert float(multipliers.values['c']) == 1.
  assert float(controller.update(multipliers, {'c': jnp.float32(-.5)}).values['c']) == 0.


@pytest.mark.parametrize(('restarts', 'least', 'most'), [(False, 0., .1), (True, .23, .27)])
def test_gates_that_answer_late_end_at_a_limit_with_restarts_and_far_below_without(restarts, least, most):
  # 16 saturated gates of different worth under Adam, of which a quarter may stay open.
  controller, tx = augmented_lagrangian(every_steps=10, restarts=restarts), optax.adam(.05, b1=.5, b2=.99)
  violation = lambda a: {'c': jax.nn.sigmoid(a).mean() / .25 - 1.}

  def step(carry, _):
    a, state, multipliers = carry
    worth = lambda a: jnp.mean(jnp.linspace(0., 1., 16) * jax.nn.sigmoid(a))
    gradient = jax.grad(lambda a: controller.penalty(multipliers, violation(a)) - worth(a))(a)
    with jax.numpy_dtype_promotion('standard'):  # Adam raises floats to the count of its steps
      updates, state = tx.update(gradient, state)
    a = a + updates
    return (a, state, controller.update(multipliers, violation(a))), None
  start = jnp.full(16, 4.)
  (a, *_), _ = jax.lax.scan(step, (start, tx.init(start), controller.init(['c'])), None, 400)
  assert least <= float(jax.nn.sigmoid(a).mean()) <= most


def test_a_budget_that_is_met_from_the_start_is_not_relaxed():
  controller = augmented_lagrangian(rho=1., every_steps=10, tighten_steps=4)
  multipliers = controller.update(controller.init(['c']), {'c': jnp.float32(-.5)})
  assert float(controller.penalty(multipliers, {'c': jnp.float32(.5)})) == .125


def test_an_infeasible_budget_is_named_with_the_smallest_reachable_value():
  free = lambda facts: jnp.float32(0.)
  budgets = {'flash_bytes': Budget(free, 3000), 'macs': Budget(free, 9.)}
  check_feasible(budgets, {'flash_bytes': 3000, 'macs': 5})
  with pytest.raises(EffjaxError, match="'flash_bytes' of 3000 cannot be met: the smallest reachable value is 5120"):
    check_feasible(budgets, {'flash_bytes': 5120, 'macs': 5})


@pytest.mark.parametrize(('options', 'text'), [({'rho': 0.}, 'rho must be positive, got 0'),
                                               ({'every_steps': 0}, 'every_steps must be at least 1, got 0'),
                                               ({'tighten_steps': -1}, 'tighten_steps must be 0 or more, got -1')])
def test_mistakes(options, text):
  with pytest.raises(EffjaxError, match=text):
    augmented_lagrangian(**options)


def test_what_is_held_counts_and_has_no_gradient():
  facts = {'choice': Fact(choice=jnp.array([.3, .7])), 'w': Fact(bits=jnp.array([4., 8.]), choice=jnp.array([.5, .5]))}
  size = lambda facts: facts['choice'].choice @ jnp.array([1., 5.]) * (facts['w'].choice @ facts['w'].bits)
  value, gradient = jax.value_and_grad(lambda facts: size(held(facts, ['choice', 'another/choice'])))(facts)
  free = jax.grad(size)(facts)
  assert value == size(facts) and jnp.any(free['choice'].choice != 0)
  np.testing.assert_array_equal(gradient['choice'].choice, [0., 0.])
  np.testing.assert_array_equal(gradient['w'].choice, free['w'].choice)
