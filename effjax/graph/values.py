"""What is known of each value of a program while labels propagate through it."""
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from effjax.graph.labels import Labels
from effjax.graph.trace import Const, Eqn, Program, Var

Axes = tuple[np.ndarray, ...]  # for each axis the channel of each entry, -1: always there


class Value(NamedTuple):
  """An array: a label per entry of each axis, and per axis whether an entry whose label is masked holds `zero`s.

  hosts: labels of single entries (an operator's probability) that it is multiplied by: masked, all of it is zero.
  known: the one number that all entries are, if it is a constant.
  """
  axes: tuple[np.ndarray, ...]
  zero: tuple[bool, ...]
  hosts: frozenset[int] = frozenset()
  known: np.ndarray | None = None


class Analysis(NamedTuple):
  """The labels of every variable of a program. `unknown`: (primitive, scope) that pinned what they touched.

  constant: variables that depend on no input, each with the equation that makes it. uses: for each use of a constant
  (first output of the equation, number of the input) its value: a table that is read twice may be cut in two ways.
  derivatives: for each custom_jvp/vjp equation (by its first output), the program of its derivative and the inputs
    that it moves.
  """
  labels: Labels
  values: dict[Var, Value]
  constant: dict[Var, Eqn]
  uses: dict[tuple[Var, int], Value]
  derivatives: dict[Var, tuple[Program, list[int]]]
  unknown: list[tuple[str, str]]


def fixed(shape: Sequence[int]) -> Value:
  """A value that keeps all its entries."""
  return Value(tuple(np.zeros(n, np.int64) for n in shape), (True,) * len(shape))


def value_of(a: Analysis, eqn: Eqn, i: int) -> Value:
  """What is known of the equation's input i, a variable or a constant."""
  v = eqn.inputs[i]
  if not isinstance(v, Const) and v not in a.constant:
    return a.values[v]
  key = (eqn.outputs[0], i)
  if key not in a.uses:
    shape, known = (np.shape(v.value), uniform(v.value)) if isinstance(v, Const) else _shape_and_known(a.values[v])
    axes = tuple(a.labels.fresh(n) for n in shape)
    a.uses[key] = Value(axes, (known is not None and not known,) * len(axes), known=known)
  return a.uses[key]


def _shape_and_known(value):
  return tuple(map(len, value.axes)), value.known


def uniform(x) -> np.ndarray | None:
  """The number that all entries of an array are, or None.

  >>> uniform(np.zeros((2, 3))), uniform(np.arange(2))
  (array(0.), None)
  """
  numeric = any(jnp.issubdtype(jnp.result_type(x), kind) for kind in (np.number, np.bool_))
  if not numeric or not np.size(x):
    return None
  x = np.asarray(x)
  first = x.ravel()[0]
  return np.asarray(first) if x.size == 1 or (x == first).all() else None


def is_zero(v: Value) -> bool:
  """Whether the value is known to be zero everywhere."""
  return v.known is not None and not np.any(v.known)


def single(a: Analysis, v: Value, gone: Sequence[int]) -> frozenset[int]:
  """Hosts of what is left when axes of one entry disappear: their free labels, on which the whole value hangs now."""
  hosts = {int(v.axes[i][0]) for i in gone if v.zero[i] and len(v.axes[i]) == 1 and not a.labels.pinned(v.axes[i])}
  a.labels.guards |= hosts
  return v.hosts | hosts


def unknown(a: Analysis, eqn: Eqn, ins: Sequence[Value], shapes: Sequence[tuple[int, ...]]) -> list[Value]:
  """Nothing can be said of the equation: all that it reads stays."""
  for v in ins:
    a.labels.pin(v.axes, f'{eqn.name} is not known to the graph')
  a.unknown.append((eqn.name, eqn.scope))
  return [fixed(s) for s in shapes]
