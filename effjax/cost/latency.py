"""Milliseconds on a device, interpolated between operators that were measured there."""
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax.cost.expect import bits_of, keep_of, present
from effjax.cost.latency_table import FORMATS, LatencyTable, Op
from effjax.cost.operator import Ends, ends, operator
from effjax.errors import EffjaxError
from effjax.graph.profile import Profile, entries
from effjax.reparam import Fact
from effjax.tree import Path


def latency(profile: Profile, facts: dict[Path, Fact], *, table: LatencyTable,
            bits: int | None = None) -> Float[Array, '']:
  """Expected milliseconds: `overhead + sum_rows P(row) count sum_format P(format) ms(row)`.

  `ms` is that of the row's operator at its expected channel counts: multilinear between measured channel counts and
  numbers of output positions, linear beyond them; where one count was measured, proportional. Differentiable almost
  everywhere in keep, choice and the probabilities of bits. Additions, pooling and what else has no row are not in it.

  Args:
    profile, facts: as for `macs`; the profile of one example.
    table: of `effjax.export.measure` or `load_latency_table`.
    bits: of all weights: 4, 8 or 32 (float32). None: those in `facts`, in the narrowest format of the table that holds
      them; a weight without bits is float32.

  Raises:
    EffjaxError: the table has no such operator or format; `bits` is none of these; a transposed convolution or a
      product of two activations.

  >>> from effjax.cost import Entry
  >>> from effjax.graph import profile
  >>> op = Op('dense', (1, 1), 1, 1, 1, (1, 1), 3, 4)
  >>> table = LatencyTable((Entry('int8', op, .5), Entry('int8', op._replace(cout=8), .9)), .1, {})
  >>> found = profile(lambda p, x: x @ p['w'], {'w': jnp.ones((3, 6))}, jnp.ones((1, 3)))
  >>> latency(found, {}, table=table, bits=8)
  Array(0.8, dtype=float32)
  """
  rows, keep = profile.rows, keep_of(facts)
  cin, cout = (entries([getattr(ends(row), name) for row in rows], keep) for name in Ends._fields)
  index, ops = _index(table), [operator(row) for row in rows]
  times = present(rows, facts) * jnp.asarray([row.count for row in rows], jnp.float32)
  total = jnp.asarray(table.overhead_ms, jnp.float32)
  for name, share in _shares(profile, facts, table, bits).items():
    grids = [_grid(index, name, op) for op in ops]
    total = total + jnp.sum(times * share * _interpolated(grids, cin, cout))
  return total


def _shares(profile, facts, table, bits) -> dict[str, Array]:
  """For each format, the probability that each row's weight is in it."""
  if bits is not None:
    if bits not in FORMATS:
      raise EffjaxError(f'latency: bits must be one of {list(FORMATS)}, got {bits}: that is what files hold')
    return {FORMATS[bits]: jnp.ones(len(profile.rows), jnp.float32)}
  has = {e.format for e in table.entries}
  widths = [b for b, name in FORMATS.items() if name in has]
  bare = next((row.path for row in profile.rows if facts.get(row.path, Fact()).bits is None), None)
  if widths[-1] < 32 and any(facts.get(row.path, Fact()).bits is None for row in profile.rows):
    raise EffjaxError(f'latency: {bare!r} has no bits in the facts and the table no float32: give bits=8, or measure '
                      'float32 too')
  held = lambda b: jnp.minimum(jnp.searchsorted(jnp.asarray(widths, jnp.float32), b), len(widths) - 1)
  within = lambda i: lambda b: (held(b) == i).astype(jnp.float32)
  return {FORMATS[b]: bits_of(profile.rows, facts, within(i)) for i, b in enumerate(widths)}


Nodes = dict[tuple[int, int], float]  # milliseconds by (cin, cout)
Grid = tuple[Sequence[int], Sequence[int], np.ndarray]


def _index(table: LatencyTable) -> dict[tuple, dict[int, Nodes]]:
  """Entries by format and kind of operator, then by the number of output positions."""
  found: dict[tuple, dict[int, Nodes]] = {}
  for e in table.entries:
    levels = found.setdefault((e.format, *e.op[:5]), {})
    levels.setdefault(math.prod(e.op.size), {})[e.op.cin, e.op.cout] = e.ms
  return found


def _grid(index, name: str, op: Op) -> Grid:
  """The measured (cin, cout) around an operator, at its number of output positions."""
  levels, positions = index.get((name, *op[:5])), math.prod(op.size)
  if levels is None:
    raise EffjaxError(f'latency: the table has no {name} {op.kind} with kernel {op.kernel}, stride {op.stride}, '
                      f'dilation {op.dilation} and groups {op.groups}: give effjax.export.measure the profile that '
                      'needs it')
  known = sorted(levels)
  if positions in levels or len(known) == 1:
    cins, couts = _rectangle(levels[positions if positions in levels else known[0]], op)
    nearest = positions if positions in levels else known[0]
    return cins, couts, _values(levels[nearest], cins, couts) * (positions / nearest)
  i = int(np.clip(np.searchsorted(known, positions), 1, len(known) - 1))
  low, high = known[i - 1:i + 1]
  cins, couts = _rectangle({at: 0. for at in levels[low] if at in levels[high]}, op)
  t = (positions - low) / (high - low)
  return cins, couts, (1 - t) * _values(levels[low], cins, couts) + t * _values(levels[high], cins, couts)


def _values(nodes: Nodes, cins, couts):
  return np.array([[nodes[a, b] for b in couts] for a in cins], np.float32)


def _rectangle(nodes: Nodes, op: Op):
  """The counts that form a whole grid around the nearest measured point: others are dropped, the farthest first."""
  if not nodes:
    raise EffjaxError(f'latency: the sizes around {op.size} of {op.kind} with kernel {op.kernel} were measured at '
                      'no common channel counts: give effjax.export.measure the profile that needs them')
  far = lambda a, b: abs(math.log(a / b))
  at = min(nodes, key=lambda n: far(n[0], op.cin) + far(n[1], op.cout))
  cins, couts = sorted(a for a, b in nodes if b == at[1]), sorted(b for a, b in nodes if a == at[0])
  while missing := [(a, b) for a in cins for b in couts if (a, b) not in nodes]:
    a, b = max(missing, key=lambda n: max(far(n[0], at[0]), far(n[1], at[1])))
    if far(a, at[0]) >= far(b, at[1]):
      cins.remove(a)
    else:
      couts.remove(b)
  return cins, couts


def _interpolated(grids: Sequence[Grid], cin: Float[Array, ' rows'], cout: Float[Array, ' rows']):
  """Bilinear in each row's grid, at least 0."""
  if not grids:
    return jnp.zeros(0, jnp.float32)
  weights = [_weights([grid[axis] for grid in grids], x) for axis, x in enumerate((cin, cout))]
  ms = np.zeros((len(grids), weights[0].shape[1], weights[1].shape[1]), np.float32)
  for i, (_, _, values) in enumerate(grids):
    ms[i, :values.shape[0], :values.shape[1]] = values
  return jnp.maximum(jnp.einsum('rij,ri,rj->r', ms, *weights), jnp.float32(0))


def _weights(nodes, x):
  """Of each row's nodes, for piecewise linear interpolation at x."""
  width = max(map(len, nodes))
  last = np.array([max(len(n) - 2, 0) for n in nodes])
  padded = np.array([[*n, *[np.inf] * (width - len(n))] for n in nodes], np.float32)
  i = jnp.clip(jnp.sum(padded <= jax.lax.stop_gradient(x)[:, None], 1) - 1, 0, last)
  alone = np.array([len(n) == 1 for n in nodes])
  rows = np.arange(len(nodes))
  low, high = jnp.asarray(padded)[rows, i], jnp.asarray(padded)[rows, jnp.minimum(i + 1, width - 1)]
  t = (x - low) / jnp.where(alone, jnp.ones_like(low), high - low)
  single = x / low  # proportional
  at = lambda j: jax.nn.one_hot(j, width, dtype=jnp.float32)
  below = jnp.where(alone, single, jnp.ones_like(t) - t)
  above = jnp.where(alone, jnp.zeros_like(t), t)
  return below[:, None] * at(i) + above[:, None] * at(i + 1)
