"""Which leaf gets how many bits under a budget: the least loss that sensitivities foresee."""
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from effjax import tree
from effjax.errors import EffjaxError
from effjax.quantize.lsq import initial_scale, quantize
from effjax.tree import Path, PyTree

Number = float | int | Array
Table = Mapping[Path, Mapping[int, Number]]


def allocate_bits(traces: Mapping[Path, Number], errors: Table, costs: Table, budget: Number, *,
                  states: int = 2**14) -> dict[Path, int]:
  """The widths of least `sum_l trace_l error_l(bits_l)` with `sum_l cost_l(bits_l) <= budget`.

  Leaf by leaf, all sums of cost and loss that no other beats in both are kept: exact, unless there are more than
  `states`; then of each of so many equal intervals of cost the least loss is.

  Args:
    traces: of each leaf, as `hessian_traces` gives them (the mean of the Hessian's diagonal); negative ones count as 0.
    errors: for each leaf and width `||Q(w) - w||^2` (see `rounding_errors`).
    costs: for each leaf and width what it takes of the budget: bytes, bit-operations, milliseconds.
    budget: in the unit of `costs`.
    states: bound on the memory; raise it for more accuracy in large networks.

  Raises:
    EffjaxError: the budget is below the smallest reachable cost, which is named; tables of different leaves or widths.

  Differs from the paper: the whole front is searched by dynamic programming, not enumerated.

  Source: Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks", NeurIPS 2020,
  arXiv:1911.03852, section 3.2.

  >>> errors = {'a': {4: 1., 8: .01}, 'b': {4: 1., 8: .01}}
  >>> costs = {'a': {4: 50, 8: 100}, 'b': {4: 50, 8: 100}}
  >>> allocate_bits({'a': 9., 'b': 1.}, errors, costs, 150)
  {'a': 8, 'b': 4}
  """
  _check(traces, errors, costs, budget)
  cost, loss, steps, budget = np.zeros(1), np.zeros(1), [], float(budget)
  least = sum(min(costs[path].values()) for path in errors)
  for path, table in errors.items():
    widths = sorted(table)
    added = np.array([costs[path][bits] for bits in widths], np.float64)
    least -= added.min()
    worse = max(float(traces[path]), 0.) * np.array([table[bits] for bits in widths], np.float64)
    total, sums = (cost[:, None] + added).ravel(), (loss[:, None] + worse).ravel()
    kept = _front(total, sums, budget - least, states)
    cost, loss = total[kept], sums[kept]
    steps.append((path, widths, kept))
  return _traced_back(steps, int(np.argmin(loss)))


def rounding_errors(params: PyTree, widths: Sequence[int], paths: Sequence[Path], *,
                    channel_axis: int = -1) -> dict[Path, dict[int, float]]:
  """`||Q(w) - w||^2` of each leaf at each width, with the scales that `lsq` starts from.

  >>> rounding_errors({'w': jnp.array([[1.], [.5]])}, (2, 8), ['w'])['w'][2] > .01
  True
  """
  found = tree.leaves(params)
  one = lambda w, bits: jnp.sum((quantize(w, initial_scale(w, bits, channel_axis=channel_axis), bits) - w)**2)
  return {path: {bits: float(one(found[path].astype(jnp.float32), bits)) for bits in widths} for path in paths}


def _check(traces, errors, costs, budget):
  for path in sorted(set(errors) | set(costs)):
    if path not in traces or set(errors.get(path, ())) != set(costs.get(path, ())) or not errors.get(path):
      raise EffjaxError(f'allocate_bits: leaf {path!r} has widths {sorted(errors.get(path, ()))} in errors, '
                        f'{sorted(costs.get(path, ()))} in costs and {"a" if path in traces else "no"} trace: wanted '
                        'the same widths in both, at least one, and a trace')
  least = sum(min(table.values()) for table in costs.values())
  if least > budget:
    raise EffjaxError(f'allocate_bits: the budget {budget} cannot be met: the smallest cost that the widths reach is '
                      f'{least}')


def _front(cost, loss, limit, states):
  """The indices of sums that fit and that no other beats in both, by ascending cost."""
  fits = np.flatnonzero(cost <= limit * (1 + 1e-12))
  order = fits[np.lexsort((loss[fits], cost[fits]))]
  best = np.minimum.accumulate(loss[order])
  order = order[np.append(True, best[1:] < best[:-1])]
  if len(order) <= states:
    return order
  at = np.minimum((cost[order] - cost[order[0]]) / max(np.ptp(cost[order]), 1e-300) * states, states - 1).astype(int)
  return order[np.append(at[1:] != at[:-1], True) | (np.arange(len(order)) == 0)]  # the cheapest one always fits


def _traced_back(steps, at):
  found = {}
  for path, widths, kept in reversed(steps):
    at, width = divmod(int(kept[at]), len(widths))
    found[path] = widths[width]
  return dict(reversed(found.items()))
