"""Labels for every axis of every value of a program, equation by equation. An unknown primitive pins what it touches.

Beside its label, each axis of a value carries `zero`: whether an entry whose label is masked holds zeros.
"""
import jax
import numpy as np

from effjax.graph.elementwise import ELEMENTWISE, elementwise
from effjax.graph.labels import Labels
from effjax.graph.rules import RULES
from effjax.graph.trace import Const, Program, Var, constants, derivative, execute, users, weights
from effjax.graph.values import Analysis, Value, fixed, unknown, value_of

SAME_ENTRIES = frozenset('broadcast_in_dim reshape squeeze expand_dims transpose slice rev'.split())


def propagate(program: Program) -> Analysis:
  """Labels for every variable of `program`: parameters' axes are free, arguments and results are pinned.

  A parameter that nothing reads is no choice either.
  """
  a = Analysis(Labels(), {}, constants(program), {}, {}, [])
  free = program.paths.keys() & users(program).keys()
  for v in program.inputs:
    a.values[v] = _leaf(a, program.avals[v].shape) if v in free else fixed(program.avals[v].shape)
  run(a, program, weights(program))
  a.labels.at = None
  for v in program.outputs:
    if not isinstance(v, Const):
      a.labels.pin(a.values[v].axes, 'an axis of the result')
  return a


def run(a: Analysis, program: Program, names: dict[Var, str]) -> None:
  """Labels for the equations of `program`, whose inputs have theirs."""
  for eqn in program.eqns:
    if not eqn.outputs:  # a print: it sees what there is
      continue
    a.labels.at = eqn
    ins = [value_of(a, eqn, i) for i in range(len(eqn.inputs))]
    shapes = [program.avals[v].shape for v in eqn.outputs]
    param = [not isinstance(v, Const) and v in names for v in eqn.inputs]
    if eqn.outputs[0] in a.constant:
      outs = _constant(eqn, ins, shapes)
    elif eqn.name == 'scan':
      outs = _scan(a, eqn, ins, shapes, names)
    elif eqn.body is not None:
      outs = _custom(a, program, eqn, ins, names)
    elif eqn.name in ELEMENTWISE:
      outs = [elementwise(a, eqn, [v] if len(shapes) > 1 else ins, s, param) for v, s in zip(ins, shapes)]
    elif rule := RULES.get(eqn.name.removesuffix('_p')):
      outs = rule(a, eqn, ins, shapes, param)
    else:
      outs = unknown(a, eqn, ins, shapes)
    a.values.update(zip(eqn.outputs, outs, strict=True))


def _leaf(a, shape):
  return Value(tuple(a.labels.fresh(n) if n > 1 else np.zeros(n, np.int64) for n in shape), (True,) * len(shape))


def _constant(eqn, ins, shapes):
  """All that is asked of a constant is whether it is one number; its entries are labelled where it is used."""
  known = None
  if ins and all(v.known is not None for v in ins):
    if eqn.name in ELEMENTWISE and len(shapes) == 1:
      with jax.ensure_compile_time_eval():
        known = np.asarray(execute(eqn, [v.known for v in ins])[0])
    elif eqn.name in SAME_ENTRIES:
      known = ins[0].known
  return [fixed(s)._replace(known=known) for s in shapes]


def _custom(a, program, eqn, ins, names):
  """A custom_jvp/vjp call: its body, and the program of its derivative, whose shapes shrink with it."""
  outs = _enter(a, eqn.body, ins, names)
  if any(not a.labels.pinned(x) for v in ins for x in v.axes):
    first = eqn.outputs[0]
    if first not in a.derivatives:
      a.derivatives[first] = derivative(eqn, program.avals)
      a.constant.update(constants(a.derivatives[first][0], a.derivatives[first][0].outputs))
    moved_program, moving = a.derivatives[first]
    moved = [ins[i] for i in moving]
    forward = eqn.name == 'custom_jvp_call'
    found = _enter(a, moved_program, [*ins, *map(_vanishing, moved if forward else outs)], {})
    a.labels.at = eqn
    for v, w in zip([*outs, *outs] if forward else moved, found):
      for x, y in zip(v.axes, w.axes):
        a.labels.join(x, y, 'joined in the derivative')
  return outs


def _scan(a, eqn, ins, shapes, names):
  """One iteration stands for all: its constants and carries are the same axes in each, and so are those of a slice.

  The entries of a stacked parameter thus live and die in all layers at once. What is carried is zero where it starts
  as zero and every iteration leaves it so; this, and what is joined, is repeated until nothing changes.
  """
  carry = eqn.carry
  a.labels.pin((v.axes[0] for v in ins[carry.stop:]), 'scan runs along it')
  state = [ins[i]._replace(known=None) for i in carry]
  slices = [v._replace(axes=v.axes[1:], zero=v.zero[1:]) for v in ins[carry.stop:]]
  settled = False
  while not settled:
    size = a.labels.size
    before = a.labels.roots()
    outs = _enter(a, eqn.body, [*ins[:carry.start], *state, *slices], names)
    a.labels.at = eqn
    for v, w in zip(state, outs):
      for x, y in zip(v.axes, w.axes):
        a.labels.join(x, y, 'carried from one iteration to the next')
    new = [v._replace(zero=tuple(p and q for p, q in zip(v.zero, w.zero)), hosts=v.hosts & w.hosts)
           for v, w in zip(state, outs)]
    settled = _same_flags(new, state) and np.array_equal(before, a.labels.roots()[:size])
    state = new
  stacked = [w._replace(axes=(np.zeros(s[0], np.int64), *w.axes), zero=(True, *w.zero), known=None)
             for w, s in zip(outs[len(carry):], shapes[len(carry):])]
  return [*state, *stacked]


def _same_flags(new, old):
  return all((v.zero, v.hosts) == (w.zero, w.hosts) for v, w in zip(new, old))


def _enter(a, program, ins, names):
  a.values.update(zip(program.inputs, ins, strict=True))
  run(a, program, names)
  return [a.values[v] if not isinstance(v, Const) else fixed(np.shape(v.value)) for v in program.outputs]


def _vanishing(v):
  return v._replace(zero=(True,) * len(v.axes), known=None)
