"""Which axis of each weight holds its output channels, whatever layout a library keeps it in."""
from collections.abc import Sequence

import jax
import numpy as np

from effjax.graph.simplified import simplified
from effjax.graph.trace import Const, Eqn, Program, Var, evaluate, needed, trace
from effjax.tree import Path, PyTree


def channel_axes(fn, params: PyTree, *args: PyTree) -> dict[Path, int]:
  """The axis of output channels, counted from the end, of each leaf that a convolution or product has as its weight.

  It is found by trial: a leaf of numbers that differ along one axis only must reach the operator as one that differs
  along its outputs only. Of several axes (heads and features) the last; a leaf that has none is left out. Weights
  within a `scan` are left out, too.

  >>> import jax.numpy as jnp
  >>> params = {'a': jnp.ones((4, 3)), 'b': jnp.ones((4, 2))}
  >>> channel_axes(lambda p, x: (x @ p['a'].T) @ p['b'], params, jnp.ones((1, 3)))
  {'a': -2, 'b': -1}
  """
  program, found = simplified(trace(fn, params, *args)), {}
  for i, eqn in enumerate(program.eqns):
    operand = eqn.inputs[1] if eqn.name in ('conv_general_dilated', 'dot_general') else None
    if operand is None or isinstance(operand, Const):
      continue
    before = needed(program.eqns[:i], [operand])
    leaves = {v for e in before for v in e.inputs if not isinstance(v, Const)} | {operand}
    if leaves & set(program.inputs[len(program.paths):]):
      continue  # made of an activation
    for v in sorted(leaves & set(program.paths), key=lambda v: -program.avals[v].size)[:1]:
      axis = _axis(program, before, operand, v, _outputs(eqn, program.avals[operand].ndim))
      found |= {} if axis is None else {program.paths[v]: axis}
  return found


def _outputs(eqn: Eqn, rank: int) -> set[int]:
  """The axes of an operator's weight that are axes of its result."""
  if eqn.name == 'conv_general_dilated':
    return {eqn.params['dimension_numbers'].rhs_spec[0]}
  (_, right), (_, batch) = eqn.params['dimension_numbers']
  return set(range(rank)) - {*right, *batch}


def _axis(program: Program, eqns: Sequence[Eqn], operand: Var, leaf: Var, outputs: set[int]) -> int | None:
  shape = program.avals[leaf].shape
  part = program._replace(eqns=tuple(eqns), outputs=(operand,))

  def reaches(axis):
    marks = np.arange(1., shape[axis] + 1).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    values = [np.broadcast_to(marks, shape) if v == leaf else np.ones(program.avals[v].shape) for v in program.inputs]
    values = [value.astype(program.avals[v].dtype) for v, value in zip(program.inputs, values)]
    with jax.ensure_compile_time_eval():
      got = np.asarray(evaluate(part, values)[0])
    along = {i for i in range(got.ndim) if got.shape[i] > 1 and np.ptp(got, i).any()}
    return along <= outputs and (along or shape[axis] == 1)

  return next((axis - len(shape) for axis in reversed(range(len(shape))) if shape[axis] > 1 and reaches(axis)), None)
