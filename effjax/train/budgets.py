"""Budgets as constraints: an augmented Lagrangian for several costs at once, pure functions and one small state."""
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from effjax import schedule
from effjax.errors import EffjaxError
from effjax.reparam import Fact
from effjax.schedule import Schedule
from effjax.tree import Path

Violations = dict[str, Float[Array, '']]


class Budget(NamedTuple):
  """`cost(facts) <= limit`.

  cost: a differentiable scalar of the facts of all leaves, e.g. `lambda facts: cost.macs(profile, facts)`.
  limit: the most that is allowed, in the cost's own unit; positive.
  """
  cost: Callable[[dict[Path, Fact]], Float[Array, '']]
  limit: float | int


class Multipliers(NamedTuple):
  """What a controller remembers: one multiplier `lambda >= 0` per budget, its step, and the violations of step 0."""
  values: dict[str, Float[Array, '']]
  step: Int[Array, '']
  start: dict[str, Float[Array, '']]


class Controller(NamedTuple):
  """How violations become a loss.

  init(names) -> Multipliers, all zero.
  penalty(multipliers, violations) -> scalar to add to the loss.
  update(multipliers, violations) -> Multipliers, once per training step.
  """
  init: Callable[[Iterable[str]], Multipliers]
  penalty: Callable[[Multipliers, Violations], Float[Array, '']]
  update: Callable[[Multipliers, Violations], Multipliers]


def violation(cost: Float[Array, ''], limit: float | int) -> Float[Array, '']:
  """`g = cost / limit - 1`: relative, so that bytes and MACs weigh the same; feasible where `g <= 0`.

  >>> float(violation(jnp.array(150.), 100.))
  0.5
  """
  return cost / jnp.asarray(limit, cost.dtype) - jnp.ones_like(cost)


def held(facts: dict[Path, Fact], paths: Iterable[Path]) -> dict[Path, Fact]:
  """`facts` of which those of `paths` have no gradient: a budget counts them, and something else has to pay.

  For operators beside gates of channels: `Budget(lambda facts: cost.macs(profile, held(facts, channels.choices)), n)`.
  An operator's logits answer a tight budget at once, while its channels are all still there and make it dear; had they
  closed first, it would cost no more than the others. Held, operators compete on the loss, and channels and bits pay.

  >>> size = lambda p: jnp.sum(held({'choice': Fact(choice=p), 'w': Fact(bits=p[0])}, ['choice'])['choice'].choice)
  >>> jax.grad(size)(jnp.ones(2))
  Array([0., 0.], dtype=float32)
  """
  return facts | {path: jax.lax.stop_gradient(facts[path]) for path in paths if path in facts}


def augmented_lagrangian(*, rho: float | int | Schedule = 1., every_steps: int = 25,
                         tighten_steps: int = 0, restarts: bool = False) -> Controller:
  """Inequality constraints `g_j <= 0` by the method of multipliers.

  `penalty = sum_j (max(0, lambda_j + rho g_j)^2 - lambda_j^2) / (2 rho)` and, every `every_steps` steps,
  `lambda_j <- max(0, lambda_j + rho g_j)`. At its fixed points `g <= 0`, `lambda >= 0` and `lambda g = 0`, with no
  weight to tune; a budget that is not reached has multiplier 0 and no influence.

  With `tighten_steps = T` a limit that is violated at first comes down to what is asked for along a geometric line:
  at step `t < T` it is `limit (1 + g_j(0))^(1 - t / T)`. A multiplier that meets the whole violation at once grows
  until decisions have followed, past what the limit is worth, and they go on far below it.

  With `restarts` lambda_j is 0 where an update finds `g_j <= 0`. Gates answer late, and what has closed has no gradient
  to open again: a multiplier that falls as slowly as it grew closes more than the limit asks for. It does not come to
  rest then: a cost ends near its limit, a little above it perhaps (`decide` takes that away), where without restarts
  it may end far below.

  Gradient: `d penalty / d g_j = max(0, lambda_j + rho g_j)`; at `rho = 0` (the start of a warm-up) `lambda_j`.

  Args:
    rho: strength of the quadratic term and step size of the multipliers, positive; or a schedule by training step.
    every_steps: steps of the optimizer per step of the multipliers. The method minimises in between: with too few
      the multipliers outrun the decisions, and gates close for good that the budget had room for; with more than a
      fortieth of the run they do not arrive.
    tighten_steps: T, in steps of the optimizer; 0 asks for the limits from the start.
    restarts: whether a multiplier starts again from 0 once its limit, or what is asked for at that step, is met.

  Raises:
    EffjaxError: `rho` is not positive, `every_steps` is below 1, or `tighten_steps` below 0.

  Source: Hestenes 1969, Powell 1969; for inequalities Rockafellar 1973, "The multiplier method of Hestenes and Powell
  applied to convex programming"; Nocedal and Wright, Numerical Optimization, section 17.3; restarts from
  Gallego-Posada et al., "Controlled Sparsity via Constrained Optimization", NeurIPS 2022, arXiv:2208.04425.
  Differs from the sources: a fixed number of optimizer steps in between stands for an exact minimisation; limits that
  tighten are ours; the restarts' source has no quadratic term.

  >>> controller = augmented_lagrangian(rho=2., every_steps=1)
  >>> multipliers = controller.update(controller.init(['macs']), {'macs': jnp.array(0.5)})
  >>> float(multipliers.values['macs']), float(controller.penalty(multipliers, {'macs': jnp.array(0.)}))
  (1.0, 0.0)
  """
  if not callable(rho) and not rho > 0.:
    raise EffjaxError(f'augmented_lagrangian: rho must be positive, got {rho}: start with 1.0')
  if every_steps < 1:
    raise EffjaxError(f'augmented_lagrangian: every_steps must be at least 1, got {every_steps}')
  if tighten_steps < 0:
    raise EffjaxError(f'augmented_lagrangian: tighten_steps must be 0 or more, got {tighten_steps}')
  strength = lambda step: schedule.value(rho if callable(rho) else float(rho), step).astype(jnp.zeros(()).dtype)

  def tightened(multipliers, violations):
    """`cost / limit_t - 1`."""
    if not tighten_steps:
      return violations
    left = jnp.maximum(1. - multipliers.step.astype(jnp.float32) / jnp.float32(tighten_steps), 0.)
    allowed = {name: (1. + start) ** left for name, start in _started(multipliers, violations).items()}
    return {name: (1. + g) / allowed[name].astype(g.dtype) - 1. for name, g in violations.items()}

  def init(names):
    zeros = {name: jnp.zeros(()) for name in names}
    return Multipliers(zeros, schedule.start(), dict(zeros))

  def penalty(multipliers, violations):
    r, violations = strength(multipliers.step), tightened(multipliers, violations)
    return sum((_penalty(value, violations[name], r) for name, value in multipliers.values.items()), jnp.zeros(()))

  def update(multipliers, violations):
    r, step = strength(multipliers.step), schedule.advance(multipliers.step)
    start, violations = _started(multipliers, violations), tightened(multipliers, violations)
    due = step % jnp.asarray(every_steps, step.dtype) == jnp.zeros_like(step)
    moved = {name: jnp.maximum(value + r * violations[name], jnp.zeros_like(value))
             for name, value in multipliers.values.items()}
    if restarts:
      moved = {name: jnp.where(violations[name] <= 0., jnp.zeros_like(value), value) for name, value in moved.items()}
    return Multipliers(jax.tree.map(lambda a, b: jnp.where(due, a, b), moved, multipliers.values), step, start)

  return Controller(init, penalty, update)


def check_feasible(budgets: Mapping[str, Budget], smallest: Mapping[str, float | int]) -> None:
  """Nothing, if every budget is at least the smallest value its cost can take.

  Args:
    budgets: by name.
    smallest: by name, the smallest value that the search space can reach, in the cost's own unit.

  Raises:
    EffjaxError: a budget is below it: named, with its limit and the smallest reachable value.

  >>> check_feasible({'macs': Budget(lambda facts: jnp.array(0.), 10.)}, {'macs': 20.})
  Traceback (most recent call last):
  effjax.errors.EffjaxError: budget 'macs' of 10 cannot be met: the smallest reachable value is 20; ask for that
  """
  for name, budget in budgets.items():
    if name in smallest and budget.limit < float(smallest[name]):
      raise EffjaxError(f'budget {name!r} of {budget.limit:.10g} cannot be met: the smallest reachable value is '
                        f'{float(smallest[name]):.10g}; ask for that')


def _started(multipliers, violations):
  """The violations of step 0, as far as there are any."""
  first = multipliers.step == jnp.zeros_like(multipliers.step)
  return {name: jnp.where(first, jnp.maximum(jax.lax.stop_gradient(violations[name]), jnp.zeros_like(start)), start)
          for name, start in multipliers.start.items()}


def _penalty(multiplier, g, rho):
  """Equal to the fraction above wherever `rho > 0`, and defined at 0."""
  active = multiplier + rho * g >= jnp.zeros_like(g)
  safe = jnp.where(active, jnp.ones_like(rho), rho)
  half = jnp.asarray(.5, g.dtype)
  return jnp.where(active, multiplier * g + half * rho * g * g, -half * multiplier * multiplier / safe)
