"""Operators and widths that a budget allows: the most probable ones, and as little less probable as it takes."""
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Array, Float

from effjax.reparam import Fact
from effjax.train.budgets import Budget
from effjax.tree import Path

Facts = dict[Path, Fact]
_LEAST = 1e-30  # of a probability, so that a logarithm of it is finite


def affordable(hard: Facts, soft: Facts, budgets: Mapping[str, Budget], gates: Facts) -> Facts:
  """`hard` with as much less probable operators and widths as the budgets ask for.

  While the sum of violations `max(0, cost / limit - 1)` is positive, one choice gives way to another of its entries:
  that with the smallest `log(p now / p then)` for each unit of violation that it takes away. Greedy: where no single
  change helps, that is the end, above a limit. On the host, after training: no gradient. No paper's.

  Args:
    hard, soft: facts of the same slots; a choice is a vector of probabilities in `soft`.
    gates: the fact of the channels to count with; {} where none is gated.

  >>> import jax.numpy as jnp
  >>> hard, soft = ({'choice': Fact(choice=jnp.array(p))} for p in ([1., 0., 0.], [.6, .3, .1]))
  >>> size = lambda facts: facts['choice'].choice @ jnp.array([9., 4., 1.])
  >>> affordable(hard, soft, {'size': Budget(size, 5.)}, {})['choice'].choice.tolist()
  [0.0, 1.0, 0.0]
  """
  probabilities = {path: np.asarray(soft[path].choice) for path in hard if _is_choice(soft[path])}
  chosen = {path: _chosen(hard[path], soft[path]) for path in probabilities}

  @jax.jit
  def costs(one_hots):
    facts = hard | {path: soft[path]._replace(choice=choice) for path, choice in one_hots.items()} | gates
    return {name: budget.cost(facts) for name, budget in budgets.items()}

  def above(chosen):
    found = costs({path: _one_hot(soft[path].choice, i) for path, i in chosen.items()})
    return sum(max(0., float(found[name]) / budget.limit - 1) for name, budget in budgets.items())

  changes = [(path, i) for path, p in probabilities.items() for i in range(p.size)]
  log = {(path, i): np.log(max(float(probabilities[path][i]), _LEAST)) for path, i in changes}
  while now := above(chosen):
    saved = {(path, i): now - above(chosen | {path: i}) for path, i in changes if i != chosen[path]}
    helps = [((log[path, chosen[path]] - log[path, i]) / s, path, i) for (path, i), s in saved.items() if s > 0]
    if not helps:
      break
    _, path, i = min(helps)
    chosen[path] = i
  return hard | {path: _made(hard[path], soft[path], i) for path, i in chosen.items()}


def _is_choice(fact: Fact) -> bool:
  """Whether it is one vector of probabilities, of operators or of widths."""
  p, bits = fact.choice, fact.bits
  return p is not None and p.ndim == 1 and (bits is None or bits.shape == p.shape)


def _chosen(hard: Fact, soft: Fact) -> int:
  return int(np.argmax(hard.choice) if soft.bits is None else np.argmin(np.abs(soft.bits - hard.bits)))


def _one_hot(like: Float[Array, ' n'], i: int) -> Float[Array, ' n']:
  return jax.nn.one_hot(i, like.size, dtype=like.dtype)


def _made(hard: Fact, soft: Fact, i: int) -> Fact:
  """The hard fact of entry i. Only the rule knows the scale of a width that it did not choose."""
  if i == _chosen(hard, soft):
    return hard
  return Fact(choice=_one_hot(hard.choice, i)) if soft.bits is None else hard._replace(bits=soft.bits[i], scale=None)
