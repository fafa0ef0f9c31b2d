"""Functions of one activation in a traced program, recognised by what they compute, whatever library spelt them.

A device has one kernel for GELU or softmax; a trace has eight equations. `recognised` makes one equation of them.
"""
from collections.abc import Container, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.graph import known
from effjax.graph.fingerprint import fingerprint
from effjax.graph.trace import (
  CUSTOM,
  Const,
  Eqn,
  Program,
  Var,
  constants,
  evaluate,
  execute,
  flatten,
  needed,
  users,
  weights,
)

ELEMENTWISE = frozenset('''add sub mul div neg max min clamp exp exp2 log log1p expm1 tanh logistic erf erfc erf_inv
    integer_pow pow square sqrt rsqrt cbrt abs sign select_n ge gt le lt eq ne and or not convert_element_type
    is_finite stop_gradient copy copy_p'''.split())
ROWS = ELEMENTWISE | {'reduce_max', 'reduce_sum', 'broadcast_in_dim', 'reshape', 'argmax', 'squeeze', 'expand_dims'}
MOVES = frozenset({'gather', 'dot_general', 'transpose', 'reshape', 'broadcast_in_dim', 'convert_element_type',
                   'squeeze'})
_CURVED = frozenset('''exp exp2 log log1p expm1 tanh logistic erf erfc integer_pow pow square sqrt rsqrt abs select_n
    mul argmax'''.split())  # without one of these a cone is affine, or a clamp
_SHORT = (np.dtype(jnp.bfloat16), np.dtype(np.float16))
_LARGEST = 40  # equations of a group
_MATCHES: dict[tuple, tuple[str, dict[str, Any]] | None] = {}  # what groups turned out to be


class Function(NamedTuple):
  """Stands for the primitive of a recognised equation, which runs its body; the equation's `params` are settings."""
  name: str
  multiple_results: bool = True


def recognised(program: Program) -> Program:
  """The program with each known function of one value (see `effjax.graph.known`) as one equation of its name.

  A group of equations that leads from one value to another is that function if it gives the function's values: on a
  grid, dense over [-8, 8] and sparse up to 1024, or on random rows or images of its shape. What depends on a second
  value, a parameter too, is none, nor is what is made of parameters alone. The largest group wins. Values and
  derivatives stay, as the equation runs the group.

  >>> from effjax.graph.trace import trace
  >>> program = trace(lambda p, x: x * jax.nn.relu6(x + 3.) / 6., {}, jnp.ones((1, 4)))
  >>> [eqn.name for eqn in recognised(program).eqns]
  ['hard_swish']
  """
  return _recognised(program, weights(program))


def _recognised(program: Program, skipped: Container[Var]) -> Program:
  at, fixed = {v: i for i, eqn in enumerate(program.eqns) for v in eqn.outputs}, constants(program)
  readers, found = users(program), {}
  inside: set[Var] = set()  # what nothing else needs once a group is one equation
  for eqn in reversed(program.eqns):
    v = eqn.outputs[0] if len(eqn.outputs) == 1 else None
    dead = v in inside and all(i >= 0 and not inside.isdisjoint(program.eqns[i].outputs) for i in readers[v])
    if v is None or dead or v in fixed or v in skipped or isinstance(eqn.primitive, Function):
      continue
    for source, group in reversed(list(_cones(eqn, at, program, fixed))):
      if (call := _call(program, at, source, group, fixed)) is not None:
        found[v] = call
        inside.update(u for e in group for u in e.outputs)
        break
  eqns = [found.get(eqn.outputs[0], eqn) if eqn.outputs else eqn for eqn in program.eqns]
  eqns = [eqn._replace(body=_recognised(eqn.body, skipped)) if eqn.name == 'scan' else eqn for eqn in eqns]
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


def _call(program, at, source, group, fixed) -> Eqn | None:
  """The equation for a group, if it is a known function."""
  before, after = (program.avals[v] for v in (source, group[0].outputs[0]))
  try_ = _try(_names(group), before, after) if jnp.issubdtype(before.dtype, jnp.floating) else None
  if try_ is None:
    return None
  body = _body(program, at, source, group, fixed)
  match = try_(body, before)
  if match is None:
    return None
  return Eqn(Function(match[0]), (source,), group[0].outputs, match[1], group[0].scope, group[0].source, body)


def _try(names, before, after):
  """How a group of primitives of these names is compared with known functions; None if it can be none."""
  if names <= ELEMENTWISE and before.shape == after.shape and names & _CURVED:
    return _on_grid
  if names <= ROWS and before.shape[:-1] == after.shape[:max(len(before.shape) - 1, 0)] and names & _CURVED:
    return lambda body, aval: _run(body, _random(aval, known.OFFSETS), _wide, known.ROWS)
  if names <= MOVES and len(before.shape) == len(after.shape) == 4 and before.shape[1:3] != after.shape[1:3]:
    return lambda body, aval: _run(body, _random(aval, (0.,)), _wide, known.resizes(before.shape, after.shape))
  return None


def _body(program, at, source, group, fixed) -> Program:
  """The group as a program of its own, with the constants that it reads."""
  eqns = {at[eqn.outputs[0]]: eqn for eqn in group}
  waiting = [v for eqn in group for v in eqn.inputs]
  while waiting:
    v = waiting.pop()
    if not isinstance(v, Const) and v in fixed and at[v] not in eqns:
      eqns[at[v]] = fixed[v]
      waiting += fixed[v].inputs
  return Program(tuple(eqns[i] for i in sorted(eqns)), (source,), group[0].outputs, program.avals, {}, None)


def _on_grid(body: Program, aval) -> tuple[str, dict[str, Any]] | None:
  """An elementwise group on a grid of its own shape; None if its constants are no numbers."""
  numbers: set[Var] = set()

  def bind(eqn, args):
    constant = all(isinstance(v, Const) or v in numbers for v in eqn.inputs)
    if constant and eqn.body is None and eqn.name not in ELEMENTWISE | {'broadcast_in_dim', 'reshape'}:
      raise ValueError(f'{eqn.name} gives no number')
    numbers.update(eqn.outputs if constant else ())
    args = jnp.broadcast_arrays(*args) if eqn.name == 'select_n' else args
    return [args[0]] if constant and eqn.name in ('broadcast_in_dim', 'reshape') else _wide(eqn, args, bind)
  return _run(body, [(known.GRID, aval.dtype)], bind, known.ELEMENTWISE)


def _random(aval, offsets):
  x = np.random.default_rng(0).normal(size=aval.shape)
  return [(x + offset, aval.dtype) for offset in offsets]


def _wide(eqn, args, bind=None):
  """The equation in float32 where it was traced in 16 bits: only the constants that it reads are rounded then."""
  if eqn.body is not None:
    return evaluate(eqn.body, args, bind or _wide)
  params = {name: np.dtype(np.float32) if isinstance(x, np.dtype) and x in _SHORT else x
            for name, x in eqn.params.items()}
  return execute(eqn._replace(params=params), list(map(_widened, args)))


def _widened(x):
  return jnp.asarray(x).astype(np.float32) if jnp.result_type(x) in _SHORT else x


def _run(body, inputs, bind, table):
  x, dtype = inputs[0]
  key = (_key(body), str(dtype), x.shape)
  if key not in _MATCHES:
    _MATCHES[key] = _matched(body, inputs, bind, table)
  return _MATCHES[key]


def _matched(body, inputs, bind, table):
  """The one function of the table that the group agrees with on all inputs."""
  found = None
  for x, dtype in inputs:
    x = np.asarray(x, np.float32 if dtype in _SHORT else dtype)
    got = _values(body, x, bind)
    close = 2.5e-3 if dtype in _SHORT else 1e-5  # a constant of bfloat16 is up to 2e-3 away
    found = None if got is None else known.match(np.asarray(x, np.float64), got, table, close)
    if found is None:
      return None
    table = table if table is known.ELEMENTWISE else [entry for entry in table if entry[:2] == found]
  return found


def _values(body, x, bind):
  try:
    with jax.ensure_compile_time_eval(), jax.default_device(jax.devices('cpu')[0]):
      got = np.asarray(jax.jit(lambda x: evaluate(body, [x], bind)[0])(x))
  except (TypeError, ValueError):
    return None
  return got.astype(np.int64 if np.issubdtype(got.dtype, np.integer) else np.float64)


def _key(body: Program) -> str:
  """What a group computes, the same wherever it stands in a program."""
  flat = flatten(body)
  number: dict[Var, int] = {}
  new = lambda v: v if isinstance(v, Const) else number.setdefault(v, len(number))
  inputs = tuple(map(new, flat.inputs))
  eqns = tuple(e._replace(inputs=tuple(map(new, e.inputs)), outputs=tuple(map(new, e.outputs))) for e in flat.eqns)
  avals = {i: flat.avals[v] for v, i in number.items()}
  return ' '.join(fingerprint(Program(eqns, inputs, tuple(map(new, flat.outputs)), avals, {}, None)))
