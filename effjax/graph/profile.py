"""One row per operation: what costs are computed from, differentiable in keep, bits and choice."""
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from effjax.graph.buffers import Buffer, buffers
from effjax.graph.channels import Labelled, label
from effjax.graph.guards import Guards, guards
from effjax.graph.trace import Const, Eqn, Program, Var, constants, flatten, walk, weights
from effjax.graph.values import Axes
from effjax.tree import Path, PyTree

NOTHING: Axes = (np.zeros(0, np.int64),)  # of an array that is not there
MULTIPLIED = frozenset({'conv_general_dilated', 'dot_general'})
KINDS = {'gather': 'gather', 'sort': 'sort', 'top_k': 'sort', 'while': 'while', 'cond': 'cond',
         **dict.fromkeys('''reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin cumsum
                            cumprod cummax cummin cumlogsumexp'''.split(), 'reduce'),
         **dict.fromkeys('reduce_window_sum reduce_window_max reduce_window_min'.split(), 'pool')}


class Row(NamedTuple):
  """One convolution (`conv`, `depthwise`, `grouped`) or matrix product (`dense`; `matmul` of two activations).

  Among `Profile.ops` also `pool`, `reduce`, `gather`, `sort`, and `while` and `cond`, whose bodies are not seen.

  path: of the weight. macs = `count * repeats * prod(kept entries of macs_axes)`.
  weight_axes, in_axes, out_axes: of the weight and of the activations that are read and written.
  guards: the (path, entry) of the operator choices that the row is multiplied by.
  count: how often it runs: the iterations of the `scan`s around it.
  stored: how many such weights there are: the slices of a stacked parameter that the scans go through.
  scope: the modules that it is called in.
  strides, dilation: of a convolution's window.
  """
  path: Path | None
  kind: str
  repeats: int
  macs_axes: Axes
  weight_axes: Axes
  in_axes: Axes
  out_axes: Axes
  guards: Guards
  count: int = 1
  stored: int = 1
  scope: str = ''
  strides: tuple[int, ...] = ()
  dilation: tuple[int, ...] = ()


class Profile(NamedTuple):
  """ops: in execution order. buffers: activations with their lifetimes. leaves: axes of every parameter leaf.

  groups: for each channel the number of its group, as in `Channels`. guards: for each leaf that an output needs, the
  operator choices that every use of it is multiplied by.
  """
  ops: tuple[Row, ...]
  buffers: tuple[Buffer, ...]
  leaves: dict[Path, Axes]
  groups: Int[np.ndarray, ' n']
  guards: dict[Path, Guards]

  @property
  def rows(self) -> tuple[Row, ...]:
    """The convolutions and matrix products: all that costs count."""
    return tuple(row for row in self.ops if row.kind not in KINDS.values())


class Counts(NamedTuple):
  """Whole numbers of one row: multiply-accumulates, parameters of its weight, activation entries read and written."""
  macs: int
  parameters: int
  read: int
  written: int


def profile(fn: Callable, params: PyTree, *args: PyTree) -> Profile:
  """The profile of `fn(params, *args)` as traced (batch size included: give one example).

  Args:
    fn, params, args: as for `channels`, whose channels the rows speak of.

  >>> import jax
  >>> fn = lambda p, x: jax.nn.relu(x @ p['a']) @ p['b']
  >>> found = profile(fn, {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}, jnp.ones((1, 3)))
  >>> [(row.path, row.kind) for row in found.rows], macs(found.rows)
  ([('a', 'dense'), ('b', 'dense')], Array([12.,  8.], dtype=float32))
  """
  found = label(fn, params, *args)
  program = flatten(found.program)
  known = _Known(found, guards(found, program), weights(program), constants(program), _stored(program))
  leaves = {path: known.axes(v) for v, path in found.program.paths.items()}
  ops = tuple(_rows(known, program, 1))
  of_leaves = {path: known.guards[v] for v, path in found.program.paths.items() if v in known.guards}
  return Profile(ops, buffers(program, known.axes, known.guards), leaves, found.channels.groups, of_leaves)


def entries(shapes: Sequence[Axes], keep: Float[Array, ' n'] | None = None) -> Float[Array, ' rows']:
  """How many entries each array has, those of channel c counted `keep[c]` times: `prod_axis sum_entry keep`.

  All sums are one matrix product, so that the costs of a large network stay a small program.
  """
  distinct: dict[bytes, int] = {}
  rows = [[distinct.setdefault(axis.tobytes(), len(distinct)) for axis in axes] for axes in shapes]
  always, times = _counted([np.frombuffer(key, np.int64) for key in distinct], 0 if keep is None else len(keep))
  sums = jnp.asarray(always) if keep is None else jnp.asarray(always) + jnp.asarray(times) @ keep.astype(jnp.float32)
  sums = jnp.append(sums, jnp.ones((), jnp.float32))
  total = jnp.ones(len(rows), jnp.float32)
  for place in range(max(map(len, rows), default=0)):
    total = total * sums[np.array([row[place] if place < len(row) else -1 for row in rows])]
  return total


def macs(rows: Sequence[Row], keep: Float[Array, ' n'] | None = None) -> Float[Array, ' rows']:
  """Multiply-accumulates of each row; biases, normalisation, activations and pooling are not counted.

  Padding counts as input, as everywhere in the field; the zeros that a transposed convolution puts between the entries
  of its input do not.
  """
  times = jnp.asarray([row.count * row.repeats for row in rows], jnp.float32)
  return times * entries([row.macs_axes for row in rows], keep)


def counts(row: Row, keep: Bool[np.ndarray, ' n'] | None = None) -> Counts:
  """What one row costs, exactly; all but the parameters over all of its runs.

  Args:
    row: of a profile.
    keep: the channels that are there; None: all.

  >>> found = profile(lambda p, x: x @ p['w'], {'w': jnp.ones((3, 4))}, jnp.ones((2, 3)))
  >>> counts(found.rows[0])
  Counts(macs=24, parameters=12, read=6, written=8)
  """
  read, weight, written = (size(axes, keep) for axes in (row.in_axes, row.weight_axes, row.out_axes))
  return Counts(row.count * row.repeats * size(row.macs_axes, keep), 0 if row.path is None else row.stored * weight,
                row.count * (read + (weight if row.path is None else 0)), row.count * written)


def intensity(row: Row, keep: Bool[np.ndarray, ' n'] | None = None, *, bytes_per_entry: float | int = 4,
              weight_bytes: float | int = 4) -> float:
  """Arithmetic intensity: multiply-accumulates per byte, if a run reads weight and input and writes its output once.

  Args:
    row, keep: as for `counts`.
    bytes_per_entry: of activations; 1 for int8.
    weight_bytes: of one entry of the weight; .5 for int4.

  >>> found = profile(lambda p, x: x @ p['w'], {'w': jnp.ones((3, 4))}, jnp.ones((2, 3)))
  >>> intensity(found.rows[0], bytes_per_entry=1, weight_bytes=.5)
  1.2
  """
  found = counts(row, keep)
  weight = 0 if row.path is None else row.count * size(row.weight_axes, keep)
  moved = bytes_per_entry * (found.read + found.written) + weight_bytes * weight
  return found.macs / moved if moved else 0.


def size(axes: Axes, keep: Bool[np.ndarray, ' n'] | None = None) -> int:
  """How many entries an array has, exactly.

  >>> size((np.array([-1, -1]), np.array([0, 1, 1]))), size((np.array([0, 1, 1]),), np.array([True, False]))
  (6, 1)
  """
  if keep is None:
    return math.prod(map(len, axes))
  there = np.append(keep, True)  # -1, the last, is what no channel removes
  return math.prod(int(there[axis].sum()) for axis in axes)


def groups(axes: Axes, group: Int[np.ndarray, ' n']) -> tuple[tuple[int, ...], ...]:
  """For each axis, the groups of channels that it holds.

  Args:
    axes: of a row.
    group: `Profile.groups`.

  >>> groups((np.array([-1, -1]), np.array([2, 0, 1])), np.array([0, 0, 1]))
  ((), (0, 1))
  """
  return tuple(tuple(np.unique(group[axis[axis >= 0]]).tolist()) for axis in axes)


def _counted(axes, n):
  """For each axis, how many entries are always there, and how many belong to each of the n channels."""
  always = np.array([(axis < 0).sum() if n else len(axis) for axis in axes], np.float32)
  times = np.zeros((len(axes), n), np.float32)
  for i, axis in enumerate(axes if n else ()):
    np.add.at(times[i], axis[axis >= 0], 1.)
  return always, times


class _Known(NamedTuple):
  """What is known of variables: labels; guards, if an output needs them; the leaf that they are made of."""
  found: Labelled
  guards: dict[Var, Guards]
  names: dict[Var, Path]
  constant: set[Var]
  stored: dict[Var, int]

  def axes(self, v: Var) -> Axes:
    return self._channels(self.found.analysis.values[v].axes)

  def read(self, eqn: Eqn, i: int) -> Axes:
    """Of input i: a constant has other labels wherever it is used."""
    v, used = eqn.inputs[i], self.found.analysis.uses.get((eqn.outputs[0], i))
    if used is not None:
      return self._channels(used.axes)
    return tuple(np.full(n, -1) for n in np.shape(v.value)) if isinstance(v, Const) else self.axes(v)

  def path(self, v: Var | Const) -> Path | None:
    return None if isinstance(v, Const) else self.names.get(v)

  def stored_of(self, v: Var | Const) -> int:
    return 1 if self.path(v) is None else self.stored.get(v, 1)

  def fixed(self, v: Var | Const) -> bool:
    return isinstance(v, Const) or v in self.names or v in self.constant

  def _channels(self, axes):
    return tuple(self.found.channel[x] for x in axes)


def _rows(known: _Known, program: Program, count: int) -> Iterator[Row]:
  for eqn in program.eqns:
    if eqn.name == 'scan':
      yield from _rows(known, eqn.body, count * eqn.params['length'])
    elif eqn.outputs[0] in known.guards and eqn.name in MULTIPLIED and eqn.outputs[0] not in known.constant:
      yield _multiplied(known, eqn, count)
    elif any(v in known.guards for v in eqn.outputs) and eqn.name in KINDS and not all(map(known.fixed, eqn.inputs)):
      yield _other(known, eqn, count)


def _multiplied(known: _Known, eqn: Eqn, count: int) -> Row:
  """A convolution or matrix product."""
  lhs, rhs = eqn.inputs
  at = 1 if isinstance(rhs, Const) or rhs in known.names else 0  # the weight
  path, out = known.path(eqn.inputs[at]), known.axes(eqn.outputs[0])
  if eqn.name == 'dot_general':
    (lc, _), _ = eqn.params['dimension_numbers']
    kind, repeats, macs_axes = 'matmul' if path is None else 'dense', 1, (*out, *(known.read(eqn, 0)[i] for i in lc))
  else:
    kind, repeats, macs_axes = _convolution(eqn, known.read(eqn, 0), known.read(eqn, 1), out)
  return Row(path, kind, repeats, macs_axes, known.read(eqn, at), known.read(eqn, 1 - at), out,
             known.guards[eqn.outputs[0]], count, known.stored_of(eqn.inputs[at]), eqn.scope,
             *(tuple(eqn.params.get(name, ())) for name in ('window_strides', 'rhs_dilation')))


def _convolution(eqn, lhs, rhs, out):
  dims, groups = eqn.params['dimension_numbers'], eqn.params['feature_group_count']
  inside, places = rhs[dims.rhs_spec[1]], list(out)
  for i, o, dilation in zip(dims.lhs_spec[2:], dims.out_spec[2:], eqn.params['lhs_dilation'], strict=True):
    places[o] = lhs[i] if dilation > 1 else out[o]  # transposed: each entry that is read meets each tap once
  kind = 'conv' if groups == 1 else 'depthwise' if len(inside) == 1 else 'grouped'
  return kind, math.prod(len(rhs[i]) for i in dims.rhs_spec[2:]), (*places, inside)


def _other(known: _Known, eqn: Eqn, count: int) -> Row:
  """What multiplies nothing. A gather reads its indices and what it takes."""
  at = next(i for i, v in enumerate(eqn.inputs) if not known.fixed(v))
  path = known.path(eqn.inputs[0])
  out = next(v for v in eqn.outputs if v in known.guards)
  taken = known.axes(out) if eqn.name == 'gather' and path is None else known.read(eqn, at)
  return Row(path, KINDS[eqn.name], 1, NOTHING, NOTHING if path is None else known.read(eqn, 0), taken, known.axes(out),
             known.guards[out], count, known.stored_of(eqn.inputs[0]), eqn.scope)


def _stored(program: Program) -> dict[Var, int]:
  """Of variables within scans: of how many stored slices each is one."""
  stored: dict[Var, int] = {}
  of = lambda v: 1 if isinstance(v, Const) else stored.get(v, 1)
  for eqn in walk(program):
    if eqn.name != 'scan':
      stored.update(dict.fromkeys(eqn.outputs, max(map(of, eqn.inputs), default=1)))
      continue
    sliced = eqn.carry.stop
    stored.update({inside: of(v) * (eqn.params['length'] if i >= sliced else 1)
                   for i, (inside, v) in enumerate(zip(eqn.body.inputs, eqn.inputs, strict=True))})
  return stored
