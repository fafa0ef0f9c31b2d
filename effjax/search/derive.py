"""From logits to a network: the largest operator of each choice, and DARTS' rule for cells."""
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Array, Float

from effjax import tree
from effjax.errors import EffjaxError
from effjax.layers.cell import Edges, Genotype
from effjax.tree import Path, PyTree

Logits = Float[Array, '...'] | Float[np.ndarray, '...']  # [edges, operators]


def argmax(choices: PyTree) -> dict[Path, int]:
  """The largest entry of each leaf by path, the first of equals; leaves are logits or probabilities, `[n]`.

  Raises:
    EffjaxError: a leaf that is no vector, or not finite.

  >>> argmax({'block1': {'choice': np.array([.2, .5, .3])}})
  {'block1/choice': 1}
  """
  for path, leaf in tree.leaves(choices).items():
    if np.ndim(leaf) != 1 or not np.size(leaf):
      raise EffjaxError(f'argmax: leaf {path!r} has shape {np.shape(leaf)}: wants the vector of a Choice')
    _check_finite('argmax', f'leaf {path!r}', leaf)
  return {path: int(np.argmax(leaf)) for path, leaf in tree.leaves(choices).items()}


def derive(normal: Logits, reduce: Logits, operators: Sequence[str], *, none: str = 'none',
           skip: str = 'skip_connect', max_skips: int | None = None) -> Genotype:
  """The genotype of two searched cells: `derive_cell` of each, whose output is all that the cell computes.

  Args:
    normal, reduce: logits; others: as in `derive_cell`, but `max_skips` is of the normal cell alone, as in P-DARTS.

  Raises:
    EffjaxError: as of `derive_cell`.

  Source: Liu et al. 2019, arXiv:1806.09055, section 2.4, survey [68]; Chen et al. 2019, arXiv:1904.12760.

  >>> derive(np.eye(2, 3), np.eye(2, 3), ('sep_conv_3x3', 'skip_connect', 'none')).normal
  (('sep_conv_3x3', 0), ('skip_connect', 1))
  """
  cells = [derive_cell(alpha, operators, none=none, skip=skip, max_skips=limit)
           for alpha, limit in ((normal, max_skips), (reduce, None))]
  concats = [tuple(range(2, 2 + len(edges) // 2)) for edges in cells]
  return Genotype(cells[0], concats[0], cells[1], concats[1])


def derive_cell(alpha: Logits, operators: Sequence[str], *, none: str = 'none', skip: str = 'skip_connect',
                max_skips: int | None = None) -> Edges:
  """Per node the 2 incoming edges with the largest `max_{o != none} softmax(alpha)_o`, each with that operator.

  The softmax is over all operators, `none` too, and it is what ranks: raw logits of two edges do not compare. With
  `max_skips=M`, as long as more than M of the kept edges are skips, the least probable of them gets probability 0 and
  the cell is derived anew: another operator of that edge takes its place, or another edge.

  Args:
    alpha: logits `[edges, operators]`, edges in the order of DARTS: to node 2 from states 0, 1; to node 3 from states
      0, 1, 2; and so on. Of probabilities p, give `log(p)`.
    operators: their names, as in `layers.operations.OPERATIONS`.
    none: the operator that is never kept; it may be missing.
    skip, max_skips: the operator that is limited, and M; None: no limit.

  Returns:
    Pairs of (operator, state) as in `layers.cell.Genotype`, those of a node by state.

  Raises:
    EffjaxError: a number of edges that no cell has, another number of operators, logits that are not finite, nothing
      that could be kept.

  Source: DARTS, Liu et al. 2019, arXiv:1806.09055, survey [68]; the limit from P-DARTS, Chen, Xie, Wu, Tian 2019,
  arXiv:1904.12760, section 3.3.
  Differs from the papers: the softmax is in float64, equals go to the lower state and the earlier operator, and edges
  are ordered by state, where DARTS' code puts the stronger first.

  >>> derive_cell(np.array([[9., 0.], [0., 9.]]), ('sep_conv_3x3', 'skip_connect'))
  (('sep_conv_3x3', 0), ('skip_connect', 1))
  >>> derive_cell(np.array([[9., 0.], [0., 9.]]), ('sep_conv_3x3', 'skip_connect'), max_skips=0)
  (('sep_conv_3x3', 0), ('sep_conv_3x3', 1))
  """
  _check(alpha, operators, {none} if max_skips is None else {none, skip}, max_skips)
  p = np.asarray(alpha, np.float64)
  p = np.exp(p - p.max(-1, keepdims=True))
  p /= p.sum(-1, keepdims=True)
  p[:, [name == none for name in operators]] = -1.  # less than what is merely improbable
  rows = _kept(p)
  while max_skips is not None:
    skips = [row for row, _ in rows if operators[np.argmax(p[row])] == skip]
    if len(skips) <= max_skips:
      break
    column = list(operators).index(skip)
    p[min(skips, key=lambda row: p[row, column]), column] = -1.
    rows = _kept(p)
  return tuple((operators[np.argmax(p[row])], state) for row, state in rows)


def derive_architecture(probabilities: Mapping[Path, Logits], operators: Sequence[str], *, none: str = 'none',
                        max_skips: int | None = None) -> dict[Path, str]:
  """The cells of `derive_cell` as an architecture of `DARTSSpace`: edges that a node does not keep become `none`.

  Args:
    probabilities: of each choice, by its path `normal/edge0/choice` ..., in any order, such as the sorted one that JAX
      gives a dictionary; `max_skips` is of the normal cell.
    others: as in `derive_cell`.

  Raises:
    EffjaxError: as of `derive_cell`; no `none` among the operators.

  >>> p = {f'normal/edge{k}/choice': np.array([.5, .4, .1]) for k in range(5)}
  >>> list(derive_architecture(p, ('none', 'skip_connect', 'sep_conv_3x3')).values())
  ['skip_connect', 'skip_connect', 'skip_connect', 'skip_connect', 'none']
  """
  if none not in operators:
    raise EffjaxError(f'derive_architecture: {none!r} is not among the operators {tuple(operators)}: an edge that is '
                      'not kept needs it')
  found = {}
  for kind in dict.fromkeys(path.split('/')[0] for path in probabilities):
    several = sum(path.split('/')[0] == kind for path in probabilities)
    rows = {path: probabilities[path] for path in (f'{kind}/edge{k}/choice' for k in range(several))}
    with np.errstate(divide='ignore'):
      alpha = np.maximum(np.log(np.stack([np.asarray(p, np.float64) for p in rows.values()])), -700.)
    kept = derive_cell(alpha, operators, none=none, max_skips=max_skips if kind == 'normal' else None)
    edges = {(i, j): none for j in range(2, 2 + _nodes(len(rows))) for i in range(j)}
    edges |= {(state, 2 + k // 2): operator for k, (operator, state) in enumerate(kept)}
    found |= dict(zip(rows, edges.values(), strict=True))
  return found


def _kept(p):
  """(row, state) of the 2 strongest edges into each node, in the order of rows."""
  best, kept, start = p.max(-1), [], 0
  for states in range(2, 2 + _nodes(len(p))):
    strongest = sorted(range(states), key=lambda state: -best[start + state])[:2]
    kept += [(start + state, state) for state in sorted(strongest)]
    start += states
  return kept


def _nodes(edges):
  """n with `2 + 3 + ... + (n + 1) = n (n + 3) / 2 = edges`; None if there is none."""
  return next((n for n in range(1, edges) if n * (n + 3) // 2 == edges), None)


def _check(alpha, operators, never, max_skips):
  shape = np.shape(alpha)
  if len(shape) != 2 or _nodes(shape[0]) is None or shape[1] != len(operators):
    raise EffjaxError(f'derive_cell: alpha has shape {shape}, wanted [2, 5, 9, 14 ... edges, {len(operators)} '
                      f'operators] for {tuple(operators)}: a node has an edge from each state before it')
  if not set(operators) - never or (max_skips or 0) < 0:
    raise EffjaxError(f'derive_cell: wants max_skips >= 0 and an operator besides {sorted(never)}, got '
                      f'max_skips={max_skips} and {tuple(operators)}: nothing could be kept')
  _check_finite('derive_cell', 'alpha', alpha)


def _check_finite(who, what, x):
  if not np.isfinite(np.asarray(x, np.float64)).all():
    raise EffjaxError(f'{who}: {what} is not finite: did the search diverge?')
