"""From a trained search to one network: hard choices, within the budgets, physically smaller."""
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import tree
from effjax.errors import EffjaxError
from effjax.graph import shrink
from effjax.graph.channels import Channels, mask
from effjax.reparam import CHANNELS, Fact, Reparam, Slots
from effjax.train.affordable import affordable
from effjax.train.budgets import Budget
from effjax.tree import Path, PyTree


class Hardened(NamedTuple):
  """fn, params: the network that was found, `fn(params, *args)`; a leaf that it does not need is None.

  keep: bool per channel of the supernet. choices: the entry chosen of each choice. bits: of each kernel that stays.
  facts: the hard facts, after the budgets. costs: by name, those of the facts. dropped: channels that are more
  probably there than not and that the budgets did not allow.
  """
  fn: Callable
  params: PyTree
  keep: np.ndarray
  choices: dict[Path, int]
  bits: dict[Path, int]
  facts: dict[Path, Fact]
  costs: dict[str, float]
  dropped: int


def decide(channels: Channels, reparam: Reparam, slots: Slots,
           budgets: Mapping[str, Budget]) -> tuple[dict[Path, Fact], dict[str, float], int]:
  """Hard facts that meet every budget, their costs, and how many channels had to go for that.

  The most probable operator and width; every channel that is more probably there than not, and the most probable one
  of each group. Should a cost still be over its limit, the channels of lowest probability go, as few as possible; where
  that is not enough, or no channel may go, operators and widths become cheaper (`affordable`).

  Raises:
    EffjaxError: that is not enough either; the budget is named with the value reached.
  """
  facts, soft = reparam.facts(slots, True), reparam.facts(slots, False)
  gated = CHANNELS in facts
  score = np.asarray(soft[CHANNELS].keep) if gated else np.zeros(0)
  best = _best(channels, score) if gated else np.zeros(0, bool)
  gates = lambda keep: {CHANNELS: Fact(keep=jnp.asarray(keep, jnp.float32))} if gated else {}
  facts = affordable(facts, soft, budgets, gates(best))
  wanted = (score > .5) | best
  order = [c for c in np.argsort(score, kind='stable') if wanted[c] and not best[c]]
  evaluate = jax.jit(lambda gates: {n: b.cost(facts | gates) for n, b in budgets.items()})

  def costs(dropped):
    keep = wanted.copy()
    keep[order[:dropped]] = False
    return keep, {n: float(v) for n, v in evaluate(gates(keep)).items()}

  low, high = 0, len(order)
  if over := _over(budgets, least := costs(high)[1]):
    raise EffjaxError(f'harden: budget {over[0]!r} of {budgets[over[0]].limit:g} is out of reach: after every change '
                      f'of an operator or a width that helps{", with one channel per group," if gated else ""} it '
                      f'still costs {least[over[0]]:g}; train the search longer or raise the budget')
  while low < high:
    middle = (low + high) // 2
    low, high = (low, middle) if not _over(budgets, costs(middle)[1]) else (middle + 1, high)
  keep, reached = costs(low)
  return facts | gates(keep), reached, low


def harden(fn: Callable, channels: Channels, reparam: Reparam, slots: Slots, *args: PyTree,
           budgets: Mapping[str, Budget] | None = None) -> Hardened:
  """The network that the slots describe: `decide`, then `graph.shrink` of the latent weights.

  The weights are the latent ones (theta), not the quantized: quantization-aware fine-tuning goes on from them.

  Args:
    fn: the supernet in inference mode, `fn(params, *args)`.
    channels: of `graph.channels(fn, params, *args)`.
    reparam, slots: as trained.
    budgets: that must hold; see `decide`.

  >>> from effjax.reparam import chain
  >>> params = {'w': jnp.ones((2, 3))}
  >>> fn = lambda p, x: x @ p['w']
  >>> none, slots = Channels(0, {}, {}, np.array([], int), {}, ()), chain().init(None, params)
  >>> found = harden(fn, none, chain(), slots, jnp.ones((1, 2)))
  >>> found.fn(found.params, jnp.ones((1, 2)))
  Array([[2., 2., 2.]], dtype=float32)
  """
  facts, costs, dropped = decide(channels, reparam, slots, budgets or {})
  choices = {path: int(np.argmax(fact.choice)) for path, fact in facts.items() if path in channels.choices}
  keep = np.asarray(facts[CHANNELS].keep) > 0 if CHANNELS in facts else np.ones(channels.size, bool)
  small, params = shrink(fn, latent(channels, slots, facts), keep, *args, choose=choices)
  left = tree.leaves(params)
  bits = {path: int(fact.bits) for path, fact in facts.items() if path in left and fact.bits is not None}
  return Hardened(small, params, keep, choices, bits, facts, costs, dropped)


def latent(channels: Channels, slots: Slots, facts: dict[Path, Fact]) -> PyTree:
  """The supernet's own weights (theta, not quantized) with hard choices, channels that go set to zero."""
  weights = tree.map_at(lambda path, _: facts[path].choice, slots.theta, channels.choices)
  return mask(channels, weights, facts[CHANNELS].keep > 0) if CHANNELS in facts else weights


def smallest(budgets: Mapping[str, Budget], channels: Channels, facts: dict[Path, Fact], *,
             gated: bool = True) -> dict[str, float]:
  """The least that each cost can be: one channel per group, for each choice the cheapest operator.

  Args:
    facts: of the narrowest widths; gates and choices in them are replaced.
    gated: whether channels may go at all.
  """
  first = np.zeros(channels.size, np.float32)
  first[np.unique(channels.groups, return_index=True)[1]] = 1.
  one_hot = lambda n, i: Fact(choice=jnp.asarray(np.eye(n, dtype=np.float32)[i]))
  gates = {CHANNELS: Fact(keep=jnp.asarray(first))} if gated else {}
  start = facts | gates | {p: one_hot(n, 0) for p, n in channels.choices.items()}
  out = {}
  for name, budget in budgets.items():
    best, cost = dict(start), jax.jit(budget.cost)
    for path, n in channels.choices.items():
      best[path] = min((one_hot(n, i) for i in range(n)), key=lambda fact: float(cost(best | {path: fact})))
    out[name] = float(cost(best))
  return out


def _best(channels, score):
  """The most probable channel of each group."""
  best = np.zeros(channels.size, bool)
  for group in range(channels.groups.max() + 1):
    best[max(np.flatnonzero(channels.groups == group), key=lambda c: score[c])] = True
  return best


def _over(budgets, costs):
  return [name for name, budget in budgets.items() if costs[name] > budget.limit]
