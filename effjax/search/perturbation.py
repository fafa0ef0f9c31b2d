"""DARTS-PT: an operator is worth what the supernet loses without it, not what its weight says."""
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.tree import Path

State = Any
Choices = dict[Path, Float[Array, '...']]


class Selection(NamedTuple):
  """operators: the chosen one of each edge; choices: one-hot there; scores: without each operator; state: the tuned."""
  operators: dict[Path, int]
  choices: Choices
  scores: dict[Path, list[float]]
  state: State


def perturbation(evaluate: Callable[[State, Choices], Any], choices: Mapping[Path, Float[Array, '...']],
                 order: Sequence[Path], *, tune: Callable[[State, Path, int], State] | None = None, state: State = None,
                 renormalize: bool = False) -> Selection:
  """Edge by edge, the operator whose removal leaves the worst score is kept and the edge becomes its one-hot.

  For edge e: `o* = argmin_o evaluate(state, choices with choices[e][o] = 0)`, the first of equals; then
  `choices[e] = onehot(o*)` and `state = tune(state, e, o*)`, and so on with the next edge. Costs one evaluation per
  operator. Runs on the host; compile `evaluate`, which always sees the same shapes, once.

  Args:
    evaluate: higher is better, e.g. the held-out accuracy of the supernet (or minus its loss) with those choices.
    choices: the probabilities of each `Choice` leaf after the search.
    order: in which edges are decided; edges that it does not name stay soft. The paper's is random, e.g.
      `random.sample(sorted(choices), len(choices))` with Python's `random`.
    tune: trains the supernet a while with what is decided, so that it recovers from it; None: it is left alone.
    state: whatever `evaluate` and `tune` need: weights, optimizer, what is decided so far.
    renormalize: give the weight of the removed operator to the others, in proportion, so that they still add to 1.

  Raises:
    EffjaxError: an edge in `order` that is unknown or twice, choices that are no vectors, a score that is not finite.

  Source: Wang, Cheng, Chen, Tang, Hsieh 2021, "Rethinking architecture selection in differentiable NAS",
  arXiv:2108.04392, algorithm 1.
  Differs from the paper: operators only. Its second phase keeps two incoming edges per node by the same criterion: a
  `none` among the operators, or `derive_cell`, decides on edges. As in the authors' code the rest is not renormalised.

  >>> worth = jnp.array([1., 5., 2.])  # the second operator is worth most, the first weighs most
  >>> found = perturbation(lambda _, choices: choices['edge'] @ worth**2, {'edge': jnp.array([.5, .2, .3])}, ['edge'])
  >>> found.operators, found.choices['edge']
  ({'edge': 1}, Array([0., 1., 0.], dtype=float32))
  """
  _check(choices, order)
  choices, operators, scores = dict(choices), {}, {}
  for edge in order:
    p = choices[edge]
    scores[edge] = [_score(evaluate, state, choices | {edge: _without(p, op, renormalize)}, edge, op)
                    for op in range(p.shape[0])]
    operators[edge] = int(np.argmin(scores[edge]))
    choices[edge] = jnp.zeros_like(p).at[operators[edge]].set(1)
    state = state if tune is None else tune(state, edge, operators[edge])
  return Selection(operators, choices, scores, state)


def _without(p, op, renormalize):
  rest = p.at[op].set(0)
  total = rest.sum()
  return rest / jnp.where(total > 0, total, 1).astype(p.dtype) if renormalize else rest


def _score(evaluate, state, choices, edge, op):
  score = float(evaluate(state, choices))
  if not np.isfinite(score):
    raise EffjaxError(f'perturbation: the score of {edge!r} without operator {op} is {score}: wants a finite number, '
                      'e.g. the accuracy')
  return score


def _check(choices, order):
  if unknown := [edge for edge in order if edge not in choices]:
    raise EffjaxError(f'perturbation: order names {unknown}, known are {sorted(choices)}: name each as in choices')
  if twice := sorted({edge for edge in order if list(order).count(edge) > 1}):
    raise EffjaxError(f'perturbation: order names {twice} more than once: name each edge once')
  for edge in order:
    if jnp.ndim(choices[edge]) != 1 or not jnp.size(choices[edge]):
      raise EffjaxError(f'perturbation: {edge!r} has shape {jnp.shape(choices[edge])}: wants the vector of a Choice')
