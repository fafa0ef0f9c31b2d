"""From a score per channel to a keep mask within budgets: greedy by score per saving, exact for additive costs."""
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Num

from effjax.errors import EffjaxError
from effjax.graph.channels import Channels
from effjax.reparam import CHANNELS, Fact
from effjax.tree import Path

TABLE = 2**26  # entries of the exact knapsack's table: above that greedy decides
STEP = 1 / 8  # share of the excess that goes before savings are computed anew


def to_budget(channels: Channels, scores: Num[Array | np.ndarray, ' n'], budgets: Mapping[str, Any], *,
              facts: dict[Path, Fact] | None = None, least: int = 1, round_to: int = 1) -> Bool[np.ndarray, ' n']:
  """The keep mask of a high total score that meets every budget: `max keep . scores` with `cost_j(keep) <= limit_j`.

  Channels go from the full network in the order of score per saving, `scores / sum_j max(0, cost_j - limit_j)
  d cost_j / d keep` (each cost relative to what has to go of it), and a multilinear cost's derivative is just what a
  channel saves. Savings are computed anew after every eighth of the excess. What still fits afterwards comes back, so
  that no channel could be added. A single cost that is additive in keep, with integer savings, is solved exactly, as
  a knapsack.

  Whether a budget holds is decided by the cost itself, in its own precision. A cost must not grow when a channel goes,
  nor differ between channels of a group.

  Args:
    channels: of `graph.channels`.
    scores: per channel, at least 0; a channel of a higher score is more worth keeping.
    budgets: by name, `(cost, limit)` such as `train.Budget`: `cost(facts)` is a differentiable scalar.
    facts: of all else that the costs read, e.g. bits.
    least: so many channels of each group stay, those of the highest scores.
    round_to: the width of each group is a multiple of it, and its channels go in the order of their scores.
      A group that has no such width of at least `least` stays whole.

  Raises:
    EffjaxError: scores of another number than channels, not finite or negative; `least` or `round_to` below 1; a
      budget below the smallest reachable cost, which is named.

  Source: Senju and Toyoda 1968, "An approach to linear programming with 0-1 variables", Management Science 15(4): the
  effective gradient. Differs from the source: costs need not be linear; many channels go at a time.

  >>> from effjax import cost, graph
  >>> fn = lambda p, x: jax.nn.relu(x @ p['a']) @ p['b']
  >>> inputs = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}, jnp.ones((1, 3))
  >>> channels, profile = graph.channels(fn, *inputs), graph.profile(fn, *inputs)
  >>> to_budget(channels, np.array([1., 4., 2., 3.]), {'macs': (lambda facts: cost.macs(profile, facts), 12)})
  array([False,  True, False,  True])
  """
  scores = _checked(channels, scores, least, round_to)
  space = _space(channels.groups, scores, least, round_to)
  costs, limits = _costs(budgets, facts or {}, space), np.array([limit for _, limit in budgets.values()], np.float64)
  every = np.ones(len(space.scores), bool)
  if not budgets or (costs.values(every) <= limits).all():
    return space.mask(every)
  _check_reachable(budgets, costs.values(~every), limits)
  chosen = _fill(space, costs, limits, _remove(space, costs, limits))
  exact = _knapsack(space, costs, limits)
  if exact is not None and (costs.values(exact) <= limits).all():
    chosen = max(chosen, _fill(space, costs, limits, exact), key=lambda chosen: space.scores @ chosen)
  return space.mask(chosen)


class Space(NamedTuple):
  """What may go: unit[c] is the number of the unit that channel c goes with, -1 if that is settled by `stays`.

  scores, groups: of the units.
  """
  stays: np.ndarray
  unit: np.ndarray
  scores: np.ndarray
  groups: np.ndarray

  def mask(self, chosen: np.ndarray) -> np.ndarray:
    """The keep mask over channels for a choice of units."""
    return self.stays | np.append(chosen, False)[self.unit]


class Costs(NamedTuple):
  """values(chosen) -> [budgets]. savings(chosen) -> (values, [budgets, units]), to first order for whole units."""
  values: Callable[[np.ndarray], np.ndarray]
  savings: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _checked(channels, scores, least, round_to):
  scores = np.asarray(scores, np.float64)
  if scores.shape != (channels.size,):
    raise EffjaxError(f'to_budget: scores of shape {scores.shape}, wanted ({channels.size},): one per channel')
  for name, bad in (('not finite', ~np.isfinite(scores)), ('negative', scores < 0)):
    if bad.any():
      first = int(np.argmax(bad))
      raise EffjaxError(f'to_budget: {bad.sum()} scores are {name}, the first is scores[{first}] = {scores[first]}: '
                        'wanted what a channel is worth, finite and at least 0')
  for name, value in (('least', least), ('round_to', round_to)):
    if value < 1:
      raise EffjaxError(f'to_budget: {name} = {value}, wanted an integer of at least 1')
  return scores


def _space(groups, scores, least, round_to):
  """Units of `round_to` channels of a group, by descending score; what is narrower than the least width stays."""
  sizes = np.bincount(groups)
  order = np.lexsort((-scores, groups))
  rank = np.empty(len(groups), np.int64)
  rank[order] = np.arange(len(groups)) - (np.cumsum(sizes) - sizes)[groups[order]]
  first, last = -(-least // round_to) * round_to, sizes[groups] // round_to * round_to
  stays = (rank < first) | (first > last)
  free = ~stays & (rank < last)
  names, number = np.unique(np.stack([groups, rank // round_to])[:, free], axis=1, return_inverse=True)
  unit = np.full(len(groups), -1)
  unit[free] = number
  return Space(stays, unit, np.bincount(number, scores[free], names.shape[1]), names[0])


def _costs(budgets, facts, space):
  each = [lambda keep, cost=cost: cost(facts | {CHANNELS: Fact(keep=keep)}) for cost, _ in budgets.values()]
  value = jax.jit(lambda keep: [f(keep) for f in each])
  gradient = jax.jit(lambda keep: [jax.value_and_grad(f)(keep) for f in each])
  keep = lambda chosen: jnp.asarray(space.mask(chosen), jnp.float32)
  free = space.unit >= 0

  def savings(chosen):
    found, by_channel = zip(*gradient(keep(chosen)))
    return np.array(found, np.float64), np.stack(
        [np.bincount(space.unit[free], np.asarray(g, np.float64)[free], len(chosen)) for g in by_channel])

  return Costs(lambda chosen: np.array(value(keep(chosen)), np.float64), savings)


def _check_reachable(budgets, smallest, limits):
  for name, reached, limit in zip(budgets, smallest, limits):
    if reached > limit:
      raise EffjaxError(f'to_budget: budget {name!r} of {limit:.10g} cannot be met: the smallest reachable value is '
                        f'{reached:.10g} with these least and round_to; ask for that')


def _remove(space, costs, limits):
  """Takes units of the least score per saving from the full network until every budget holds."""
  chosen = np.ones(len(space.scores), bool)
  values, savings = costs.savings(chosen)
  total = np.maximum(values - limits, np.finfo(np.float32).tiny)  # of each cost, what has to go of the full network
  while (values > limits).any():
    excess = np.maximum(values - limits, 0.) / total
    gain = np.maximum(excess @ (savings / total[:, None]), 0.)
    order = np.flatnonzero(chosen)[_by_worth(space.scores[chosen], gain[chosen])]
    count = max(1, np.searchsorted(np.cumsum(gain[order]), STEP * excess @ excess))
    chosen[order[:count]] = False
    values, savings = costs.savings(chosen)
  return chosen


def _fill(space, costs, limits, chosen):
  """Puts back all that fits, what is worth most per cost first; one of a kind that does not fit rules out its kind."""
  values, savings = costs.savings(chosen)
  left = np.flatnonzero(~chosen)
  relative = (savings / np.maximum(np.abs(values), np.finfo(np.float32).tiny)[:, None]).sum(0)
  left = left[_by_worth(space.scores[left], relative[left])[::-1]]
  count = 1
  while len(left):
    wider = chosen.copy()
    wider[left[:count]] = True
    if (costs.values(wider) <= limits).all():
      chosen, left, count = wider, left[count:], 2 * count
    elif count > 1:
      count = 1
    else:
      left = left[space.groups[left] != space.groups[left[0]]]
  return chosen


def _by_worth(scores, gain):
  """Positions by ascending score per gain; what gains nothing comes last, by its score."""
  ratio = np.divide(scores, gain, out=np.full(len(scores), np.inf), where=gain > 0)
  return np.lexsort((scores, ratio))


def _knapsack(space, costs, limits):
  """The optimum for one additive cost of integer savings, by dynamic programming over capacities; else None."""
  every = np.ones(len(space.scores), bool)
  (_, savings), (smallest, others) = costs.savings(every), costs.savings(~every)
  weights = np.rint(savings[0]).astype(np.int64)
  if len(limits) > 1 or (savings != others).any() or (savings[0] != weights).any() or (weights < 0).any():
    return None
  unit = max(int(np.gcd.reduce(weights)), 1)
  weights, capacity = weights // unit, int((limits[0] - smallest[0]) // unit)
  return _best(space.scores, weights, capacity) if len(weights) * (capacity + 1) <= TABLE else None


def _best(values, weights, capacity):
  """The subset of the highest value with a weight of at most `capacity`."""
  best = np.zeros(capacity + 1)
  taken = np.zeros((len(values), capacity + 1), bool)
  for i, (value, weight) in enumerate(zip(values, weights)):
    if weight <= capacity:
      candidate = best[:capacity + 1 - weight] + value
      taken[i, weight:] = candidate >= best[weight:]
      best[weight:] = np.maximum(candidate, best[weight:])
  chosen = np.zeros(len(values), bool)
  for i in reversed(range(len(values))):
    if taken[i, capacity]:
      chosen[i], capacity = True, capacity - weights[i]
  return chosen
