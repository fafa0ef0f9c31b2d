"""Functions of one activation in a traced program, recognised by what they compute, whatever library spelt them.

A device has one kernel for GELU or softmax; a trace has eight equations. `recognised` makes one equation of them.
"""
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.graph import known
from effjax.graph.fingerprint import fingerprint
from effjax.graph.trace import CUSTOM, Const, Eqn, Program, Var, constants, evaluate, execute, flatten, needed, users

ELEMENTWISE = frozenset('''add sub mul div neg max min clamp exp exp2 log log1p expm1 tanh logistic erf erfc erf_inv
    integer_pow pow square sqrt rsqrt cbrt abs sign select_n ge gt le lt eq ne and or not convert_element_type
    is_finite stop_gradient copy copy_p'''.split())
ROWS = ELEMENTWISE | {'reduce_max', 'reduce_sum', 'broadcast_in_dim', 'reshape', 'argmax', 'squeeze', 'expand_dims'}
MOVES = frozenset({'gather', 'dot_general', 'transpose', 'reshape', 'broadcast_in_dim', 'convert_element_type',
                   'squeeze'})
_CURVED = frozenset('''exp exp2 log log1p expm1 tanh logistic erf erfc integer_pow pow square sqrt rsqrt abs select_n
    mul argmax'''.split())  # without one of these a cone is affine, or a clamp
_LARGEST = 40  # equations of a group
_MATCHES: dict[tuple, tuple[str, dict[str, Any]] | None] = {}  # what groups turned out to be


class Function(NamedTuple):
  """Stands for the primitive of a recognised equation, which runs its body; the equation's `params` are settings."""
  name: str
  multiple_results: bool = True


def recognised(program: Program) -> Program:
  """The program with each known function of one value (see `effjax.graph.known`) as one equation of its name.

  A group of equations that leads from one value to another is that function if it gives the function's values: on a
  grid over [-8, 8], or on random rows or images of its shape. What depends on a second value, a parameter too, is none.
  The largest group wins. Values and derivatives stay, as the equation runs the group.

  >>> from effjax.graph.trace import trace
  >>> program = trace(lambda p, x: x * jax.nn.relu6(x + 3.) / 6., {}, jnp.ones((1, 4)))
  >>> [eqn.name for eqn in recognised(program).eqns]
  ['hard_swish']
  """
  at, fixed = {v: i for i, eqn in enumerate(program.eqns) for v in eqn.outputs}, constants(program)
  readers, found = users(program), {}
  inside: set[Var] = set()  # what nothing else needs once a group is one equation
  for eqn in reversed(program.eqns):
    v = eqn.outputs[0] if len(eqn.outputs) == 1 else None
    dead = v in inside and all(i >= 0 and not inside.isdisjoint(program.eqns[i].outputs) for i in readers[v])
    if v is None or dead or v in fixed or isinstance(eqn.primitive, Function):
      continue
    for source, group in sorted(_cones(eqn, at, program, fixed), key=lambda cone: -len(cone[1])):
      if (call := _call(program, source, group, fixed)) is not None:
        found[v] = call
        inside.update(u for e in group for u in e.outputs)
        break
  eqns = [found.get(eqn.outputs[0], eqn) if eqn.outputs else eqn for eqn in program.eqns]
  eqns = [eqn._replace(body=recognised(eqn.body)) if eqn.name == 'scan' else eqn for eqn in eqns]
  return program._replace(eqns=tuple(needed(eqns, program.outputs)))


def _cones(eqn: Eqn, at: dict[Var, int], program: Program, fixed) -> Iterator[tuple[Var, list[Eqn]]]:
  """The groups of equations that end in `eqn` and read one value, each with that value, the smallest first."""
  group, open_ = [eqn], _read(eqn, fixed)
  while len(group) <= _LARGEST and _allowed(group[-1]):
    if len(open_) == 1:
      yield next(iter(open_)), list(group)
    latest = max((v for v in open_ if v in at), key=at.get, default=None)
    if latest is None:
      return
    group.append(program.eqns[at[latest]])
    open_ = open_ - set(group[-1].outputs) | _read(group[-1], fixed)


def _read(eqn, fixed):
  return {v for v in eqn.inputs if not isinstance(v, Const) and v not in fixed}


def _allowed(eqn) -> bool:
  if eqn.name in CUSTOM:
    return all(map(_allowed, eqn.body.eqns))
  return eqn.name in ROWS or eqn.name in MOVES


def _names(group) -> set[str]:
  inner = [e for eqn in group if eqn.name in CUSTOM for e in eqn.body.eqns]
  return {eqn.name for eqn in (*group, *inner)} - CUSTOM


def _call(program, source, group, fixed) -> Eqn | None:
  """The equation for a group, if it is a known function."""
  names, end = _names(group), group[0]
  before, after = (program.avals[v] for v in (source, end.outputs[0]))
  if not jnp.issubdtype(before.dtype, jnp.floating):
    return None
  body = _body(program, source, group, fixed)
  if names <= ELEMENTWISE and before.shape == after.shape and names & _CURVED:
    match = _on_grid(body, before)
  elif names <= ROWS and before.shape[:-1] == after.shape[:max(len(before.shape) - 1, 0)] and names & _CURVED:
    match = _on_values(body, before, known.ROWS)
  elif names <= MOVES and len(before.shape) == len(after.shape) == 4 and before.shape[1:3] != after.shape[1:3]:
    match = _on_values(body, before, known.resizes(before.shape, after.shape))
  else:
    match = None
  if match is None:
    return None
  return Eqn(Function(match[0]), (source,), end.outputs, match[1], end.scope, end.source, body)


def _body(program, source, group, fixed) -> Program:
  """The group as a program of its own, with the constants that it reads."""
  eqns = {id(eqn): eqn for eqn in group}
  waiting = [v for eqn in group for v in eqn.inputs]
  while waiting:
    v = waiting.pop()
    if not isinstance(v, Const) and v in fixed and id(fixed[v]) not in eqns:
      eqns[id(fixed[v])] = fixed[v]
      waiting += fixed[v].inputs
  ordered = [eqn for eqn in program.eqns if id(eqn) in eqns]
  return Program(tuple(ordered), (source,), group[0].outputs, program.avals, {}, None)


def _on_grid(body: Program, aval) -> tuple[str, dict[str, Any]] | None:
  """An elementwise group on a grid of its own shape; None if its constants are no numbers."""
  x = known.GRID.astype(aval.dtype)
  numbers: set[Var] = set()

  def bind(eqn, args):
    constant = all(isinstance(v, Const) or v in numbers for v in eqn.inputs)
    numbers.update(eqn.outputs if constant else ())
    if eqn.name in CUSTOM:  # its own program, which is for any shape
      return evaluate(eqn.body, args, bind)
    args = jnp.broadcast_arrays(*args) if eqn.name == 'select_n' else args
    return [args[0]] if constant and eqn.name in ('broadcast_in_dim', 'reshape') else execute(eqn, args)
  return _run(body, x, bind, known.ELEMENTWISE)


def _on_values(body, aval, table) -> tuple[str, dict[str, Any]] | None:
  """Another group on random values of the shape that it was traced for."""
  return _run(body, np.random.default_rng(0).normal(size=aval.shape).astype(aval.dtype), execute, table)


def _run(body, x, bind, table):
  key = (_key(body), str(x.dtype), x.shape)
  if key not in _MATCHES:
    _MATCHES[key] = _matched(body, x, bind, table)
  return _MATCHES[key]


def _matched(body, x, bind, table):
  try:
    with jax.ensure_compile_time_eval():
      got = np.asarray(jax.jit(lambda x: evaluate(body, [x], bind)[0])(x))
  except (TypeError, ValueError):
    return None
  got = got.astype(np.int64 if np.issubdtype(got.dtype, np.integer) else np.float64)
  return known.match(np.asarray(x, np.float64), got, table, 1e-5 if x.dtype == np.float32 else 2e-2)


def _key(body: Program) -> str:
  """What a group computes, the same wherever it stands in a program."""
  flat = flatten(body)
  number: dict[Var, int] = {}
  new = lambda v: v if isinstance(v, Const) else number.setdefault(v, len(number))
  inputs = tuple(map(new, flat.inputs))
  eqns = tuple(e._replace(inputs=tuple(map(new, e.inputs)), outputs=tuple(map(new, e.outputs))) for e in flat.eqns)
  avals = {i: flat.avals[v] for v, i in number.items()}
  return ' '.join(fingerprint(Program(eqns, inputs, tuple(map(new, flat.outputs)), avals, {}, None)))
