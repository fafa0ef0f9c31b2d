"""One row per convolution and matrix product: what costs are computed from, differentiable in keep, bits and choice."""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax.graph.channels import Labelled, label
from effjax.graph.propagate import ELEMENTWISE
from effjax.graph.trace import Const, Eqn, Program, Var, flatten, weights
from effjax.tree import Path, PyTree

Axes = tuple[np.ndarray, ...]  # for each axis the channel of each entry, -1: always there


class Row(NamedTuple):
  """One convolution (`conv`, `depthwise`, `grouped`) or matrix product (`dense`; `matmul` of two activations).

  path: of the weight. macs = `repeats * prod(kept entries of macs_axes)`.
  weight_axes, in_axes, out_axes: of the weight and of the activations that are read and written.
  guards: the (path, entry) of the operator choices that the row is multiplied by.
  """
  path: Path | None
  kind: str
  repeats: int
  macs_axes: Axes
  weight_axes: Axes
  in_axes: Axes
  out_axes: Axes
  guards: tuple[tuple[Path, int], ...]


class Buffer(NamedTuple):
  """An activation that the device holds in memory between two of the program's steps."""
  axes: Axes
  guards: tuple[tuple[Path, int], ...]
  first: int
  last: int


class Profile(NamedTuple):
  """rows: in execution order. buffers: activations with their lifetimes. leaves: axes of every parameter leaf."""
  rows: tuple[Row, ...]
  buffers: tuple[Buffer, ...]
  leaves: dict[Path, Axes]


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
  guards = _guards(found)
  program = flatten(found.program)
  axes = lambda v: tuple(found.channel[x] for x in found.analysis.values[v].axes)
  names = weights(program)
  rows = tuple(_row(program, eqn, axes, guards, names) for eqn in program.eqns
               if eqn.name in ('conv_general_dilated', 'dot_general') and eqn.outputs[0] in guards)
  leaves = {path: axes(v) for v, path in found.program.paths.items()}
  return Profile(rows, _buffers(program, axes, guards, names), leaves)


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
  """Multiply-accumulates of each row; biases, normalisation, activations and pooling are not counted."""
  return jnp.asarray([row.repeats for row in rows], jnp.float32) * entries([row.macs_axes for row in rows], keep)


def _counted(axes, n):
  """For each axis, how many entries are always there, and how many belong to each of the n channels."""
  always = np.array([(axis < 0).sum() if n else len(axis) for axis in axes], np.float32)
  times = np.zeros((len(axes), n), np.float32)
  for i, axis in enumerate(axes if n else ()):
    np.add.at(times[i], axis[axis >= 0], 1.)
  return always, times


def _row(program: Program, eqn: Eqn, axes: Callable[[Var], Axes], guards, names) -> Row:
  lhs, rhs = eqn.inputs
  read = lambda v: axes(v) if not isinstance(v, Const) else tuple(np.full(n, -1) for n in np.shape(v.value))
  weight = rhs if isinstance(rhs, Const) or rhs in names else lhs
  data = lhs if weight is rhs else rhs
  path = names.get(weight) if not isinstance(weight, Const) else None
  out = axes(eqn.outputs[0])
  if eqn.name == 'dot_general':
    (lc, _), _ = eqn.params['dimension_numbers']
    kind, repeats, macs_axes = 'dense' if path else 'matmul', 1, (*out, *(read(lhs)[i] for i in lc))
  else:
    dims, groups = eqn.params['dimension_numbers'], eqn.params['feature_group_count']
    inside = read(rhs)[dims.rhs_spec[1]]
    kind = 'conv' if groups == 1 else 'depthwise' if len(inside) == 1 else 'grouped'
    repeats = int(np.prod([len(read(rhs)[i]) for i in dims.rhs_spec[2:]]))
    macs_axes = (*out, inside)
  return Row(path, kind, repeats, macs_axes, read(weight), read(data), out, guards[eqn.outputs[0]])


def _guards(found: Labelled) -> dict[Var, tuple[tuple[Path, int], ...]]:
  """For each variable that the outputs need, the choices that every use of it is multiplied by."""
  program, values = flatten(found.program), found.analysis.values
  hosts = lambda v: frozenset(found.guard[h] for h in values[v].hosts if h in found.guard)
  guards: dict[Var, frozenset] = {v: frozenset() for v in program.outputs if not isinstance(v, Const)}
  for eqn in reversed(program.eqns):
    below = [guards[v] | hosts(v) for v in eqn.outputs if v in guards]
    for v in eqn.inputs if below else ():
      if not isinstance(v, Const):
        mine = frozenset.intersection(*below)
        guards[v] = guards[v] & mine if v in guards else mine
  return {v: tuple(sorted(g)) for v, g in guards.items()}


ALIASES = frozenset('reshape squeeze expand_dims broadcast_in_dim'.split())


def _buffers(program: Program, axes, guards, names) -> tuple[Buffer, ...]:
  """Activations in memory: what an elementwise step makes of one activation takes the place of its input."""
  home: dict[Var, Var] = {}
  life: dict[Var, list[int]] = {}
  for v in program.inputs:
    if v not in program.paths and v in guards:
      home[v], life[v] = v, [0, 0]
  for i, eqn in enumerate(program.eqns):
    read = [v for v in eqn.inputs if not isinstance(v, Const) and v in home]
    for v in read:
      life[home[v]][1] = i
    if not read or eqn.outputs[0] not in guards:
      continue
    same = eqn.name in ALIASES | ELEMENTWISE and len({home[v] for v in read}) == 1
    for v in eqn.outputs:
      home[v] = home[read[0]] if same else v
      life.setdefault(home[v], [i, i])
  for v in program.outputs:
    if not isinstance(v, Const) and v in home:
      life[home[v]][1] = len(program.eqns)
  return tuple(Buffer(axes(v), guards.get(v, ()), first, last) for v, (first, last) in life.items())
