"""Any JAX function as one flat list of equations, with the parameters known by path.

`jit`, `remat` and closed calls are inlined (rematerialisation is memory, not meaning). `custom_jvp` and `custom_vjp`
calls stay one equation, so that evaluating the program keeps their derivative, and so does `scan`; each has the
program that it runs as `eqn.body`. Everything in `effjax.graph` is read off this list.
"""
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from effjax import tree
from effjax.errors import EffjaxError
from effjax.tree import Path, PyTree

Var = int | tuple  # a number; within the program of a derivative (variable of the call, number)

INLINED = frozenset({'jit', 'pjit', 'closed_call', 'core_call', 'remat', 'remat2', 'checkpoint'})
CUSTOM = frozenset({'custom_jvp_call', 'custom_vjp_call', 'custom_vjp_call_jaxpr'})


class Const(NamedTuple):
  """An input of an equation that is a constant of the program (a literal, or an array that `fn` closes over)."""
  value: Any


class Eqn(NamedTuple):
  """One primitive applied. `inputs` are variables or constants.

  scope: the modules that it is called in. source: JAX's notes on the code that made it, innermost call first.
  body: the program of a custom_jvp/vjp call, of a recognised function, or of one iteration of a `scan`: its inputs
    are the constants, the carries and a slice of each array that is scanned, its outputs the carries and a slice of
    each result.
  carry: which inputs of a `scan` are carries.
  """
  primitive: core.Primitive
  inputs: tuple[Var | Const, ...]
  outputs: tuple[Var, ...]
  params: dict[str, Any]
  scope: str
  source: tuple = ()
  body: 'Program | None' = None
  carry: range = range(0)

  @property
  def name(self) -> str:
    """The primitive's name, e.g. `conv_general_dilated`."""
    return self.primitive.name


class Program(NamedTuple):
  """A traced function.

  eqns: in execution order. inputs: the flat arguments, parameters first. outputs: variables or constants.
  avals: shape and dtype of each variable. paths: of the inputs that are parameters.
  out_tree: structure of the result.
  """
  eqns: tuple[Eqn, ...]
  inputs: tuple[Var, ...]
  outputs: tuple[Var | Const, ...]
  avals: dict[Var, jax.ShapeDtypeStruct]
  paths: dict[Var, Path]
  out_tree: Any


def trace(fn: Callable, params: PyTree, *args: PyTree) -> Program:
  """The program of `fn(params, *args)`, without what leads to no output.

  Arrays or `jax.ShapeDtypeStruct`s may be given.

  Args:
    fn: any JAX function whose first argument is a tree of parameters.

  >>> program = trace(lambda p, x: jax.nn.relu(x @ p['w']), {'w': jnp.ones((3, 2))}, jnp.ones((1, 3)))
  >>> [eqn.name for eqn in program.eqns], program.paths
  (['dot_general', 'custom_jvp_call'], {0: 'w'})
  """
  closed, out = jax.make_jaxpr(fn, return_shape=True)(params, *args)
  builder = _Builder()
  inputs = tuple(builder.new(v.aval) for v in closed.jaxpr.invars)
  eqns, outputs = builder.inline(closed.jaxpr, closed.consts, inputs)
  eqns = needed(eqns, outputs)
  names = list(tree.leaves(params))
  return Program(tuple(eqns), inputs, tuple(outputs), builder.avals, dict(zip(inputs, names)),
                 jax.tree.structure(out))


def needed(eqns: Sequence[Eqn], outputs: Sequence[Var | Const]) -> list[Eqn]:
  """Without what leads to no output, unless it gives nothing at all and is there for its effect (a print)."""
  needed, kept = {v for v in outputs if not isinstance(v, Const)}, []
  for eqn in reversed(eqns):
    if not eqn.outputs or not needed.isdisjoint(eqn.outputs):
      needed.update(v for v in eqn.inputs if not isinstance(v, Const))
      kept.append(eqn)
  return kept[::-1]


def flatten(program: Program) -> Program:
  """The program with custom_jvp/vjp bodies inlined too: the same values, for inference only."""
  alias: dict[Var, Var | Const] = {}
  read = lambda v: v if isinstance(v, Const) else alias.get(v, v)

  def walk(eqns):
    for eqn in eqns:
      inputs = tuple(map(read, eqn.inputs))
      if eqn.name not in CUSTOM:
        yield eqn._replace(inputs=inputs, body=eqn.body and flatten(eqn.body))
        continue
      alias.update(zip(eqn.body.inputs, inputs, strict=True))
      yield from walk(eqn.body.eqns)
      alias.update(zip(eqn.outputs, map(read, eqn.body.outputs), strict=True))

  eqns = tuple(walk(program.eqns))
  return program._replace(eqns=eqns, outputs=tuple(map(read, program.outputs)))


def derivative(eqn: Eqn, avals: dict[Var, jax.ShapeDtypeStruct]) -> tuple[Program, list[int]]:
  """The derivative of a custom_jvp/vjp equation, traced through its own rule, and which inputs it moves.

  Inputs: those of the equation, then a tangent for each floating-point one. Outputs: the equation's, then theirs
  tangents; for a custom_vjp, which has no forward mode, the cotangents of the floating inputs given those of the
  outputs (the second half of the inputs). Calls within it are inlined: it is differentiated once.
  """
  specs = [jax.eval_shape(lambda v=v: v.value) if isinstance(v, Const) else avals[v] for v in eqn.inputs]
  moving = [i for i, s in enumerate(specs) if jnp.issubdtype(s.dtype, jnp.floating)]

  def along(values):
    def call(*floats):
      full = list(values)
      for i, x in zip(moving, floats):
        full[i] = x
      return tuple(execute(eqn, full))
    return call, [values[i] for i in moving]

  def pushforward(values, tangents):
    call, floats = along(values)
    return jax.jvp(call, floats, tangents)

  def pullback(values, cotangents):
    call, floats = along(values)
    return jax.vjp(call, *floats)[1](tuple(cotangents))

  builder = _Builder(eqn.outputs[0])
  outs = [avals[v] for v in eqn.outputs]
  forward = eqn.name == 'custom_jvp_call'
  closed = jax.make_jaxpr(pushforward if forward else pullback)(specs, [specs[i] for i in moving] if forward else outs)
  inputs = tuple(builder.new(v.aval) for v in closed.jaxpr.invars)
  eqns, outputs = builder.inline(closed.jaxpr, closed.consts, inputs, eqn.scope, eqn.source)
  return flatten(Program(tuple(eqns), inputs, tuple(outputs), builder.avals, {}, None)), moving


def walk(program: Program) -> Iterator[Eqn]:
  """Every equation, each before those of its body."""
  for eqn in program.eqns:
    yield eqn
    if eqn.body is not None:
      yield from walk(eqn.body)


def evaluate(program: Program, inputs: Sequence[Any], bind: Callable[[Eqn, list], Sequence[Any]] | None = None) -> list:
  """The flat outputs for flat inputs. `bind(eqn, args)` replaces the execution of one equation.

  Values are dropped after their last use.
  """
  bind = bind or execute
  env: dict[Var, Any] = dict(zip(program.inputs, inputs, strict=True))
  read = lambda v: v.value if isinstance(v, Const) else env[v]
  last = last_use(program)
  for i, eqn in enumerate(program.eqns):
    env.update(zip(eqn.outputs, bind(eqn, [read(v) for v in eqn.inputs]), strict=True))
    for v in last.get(i, ()):
      env.pop(v, None)
  return [read(v) for v in program.outputs]


def execute(eqn: Eqn, args: Sequence[Any]) -> Sequence[Any]:
  """One equation as it was traced; a recognised function runs its body."""
  if eqn.body is not None and eqn.name not in CUSTOM | {'scan'}:
    return evaluate(eqn.body, args)
  bound = eqn.primitive.get_bind_params(eqn.params)
  subfuns, params = bound if isinstance(bound, tuple) else ((), bound)  # a pair before JAX 0.10
  out = eqn.primitive.bind(*subfuns, *args, **params)
  return out if eqn.primitive.multiple_results else [out]


def scan(eqn: Eqn, args: Sequence[Any], run: Callable[[list], tuple[Sequence[Any], PyTree]]) -> tuple[list, PyTree]:
  """A `scan` equation with another body, `run(inputs of eqn.body) -> (outputs of eqn.body, more)`, at any shapes.

  A scanned array that is None is None in every iteration. `more` comes back stacked.
  """
  p, first, end = eqn.params, eqn.carry.start, eqn.carry.stop
  consts, carry, xs = args[:first], args[first:end], args[end:]

  def body(carry, x):
    out, more = run([*consts, *carry, *x])
    return list(out[:len(carry)]), (list(out[len(carry):]), more)
  carry, (ys, more) = jax.lax.scan(body, list(carry), list(xs), p['length'], p['reverse'], p['unroll'])
  return [*carry, *ys], more


def last_use(program: Program) -> dict[int, list[Var]]:
  """For each equation's index, the variables that nothing needs after it."""
  last: dict[Var, int] = {}
  for i, eqn in enumerate(program.eqns):
    last.update({v: i for v in (*eqn.inputs, *eqn.outputs) if not isinstance(v, Const)})
  kept = {v for v in program.outputs if not isinstance(v, Const)}
  ends: dict[int, list[Var]] = {}
  for v, i in last.items():
    if v not in kept:
      ends.setdefault(i, []).append(v)
  return ends


def users(program: Program) -> dict[Var, list[int]]:
  """For each variable, the indices of the equations that read it (an output of the program counts as -1)."""
  out: dict[Var, list[int]] = {}
  for i, eqn in enumerate(program.eqns):
    for v in eqn.inputs:
      if not isinstance(v, Const):
        out.setdefault(v, []).append(i)
  for v in program.outputs:
    if not isinstance(v, Const):
      out.setdefault(v, []).append(-1)
  return out


def weights(program: Program) -> dict[Var, Path]:
  """Variables that are made of parameters alone, each with the path of the largest leaf that it is made of.

  Those within bodies too; what a `scan` carries is no weight.
  """
  size = lambda v: int(np.prod(program.avals[v].shape))
  leaf: dict[Var, Var] = {v: v for v in program.paths}
  constant = constants(program)
  for eqn in walk(program):
    read = [v for v in eqn.inputs if not isinstance(v, Const) and v not in constant]
    if eqn.body is not None:
      leaf.update({b: leaf[v] for i, (b, v) in enumerate(zip(eqn.body.inputs, eqn.inputs, strict=True))
                   if i not in eqn.carry and not isinstance(v, Const) and v in leaf})
    if read and all(v in leaf for v in read):
      largest = max((leaf[v] for v in read), key=size)
      leaf.update(dict.fromkeys(eqn.outputs, largest))
  return {v: program.paths[origin] for v, origin in leaf.items()}


def constants(program: Program, kept: Sequence[Var | Const] = ()) -> dict[Var, Eqn]:
  """Variables that depend on no input, each with its equation: tables and masks that the function makes.

  Those within bodies too, except for what a body (or `kept`) gives back: it has the shapes of other results there.
  """
  found: dict[Var, Eqn] = {}
  for eqn in program.eqns:
    if all(isinstance(v, Const) or v in found for v in eqn.inputs) and not any(v in kept for v in eqn.outputs):
      found.update(dict.fromkeys(eqn.outputs, eqn))
    elif eqn.body is not None:
      found.update(constants(eqn.body, eqn.body.outputs))
  return found


class _Builder:
  """Numbers variables afresh, so that a jaxpr that is called twice becomes two lists of equations."""

  def __init__(self, prefix: Var | None = None):
    self.avals: dict[Var, jax.ShapeDtypeStruct] = {}
    self.prefix = prefix

  def new(self, aval) -> Var:
    if not hasattr(aval, 'shape'):
      raise EffjaxError(f'trace: a value of type {aval} is not an array: only array functions can be analysed')
    v = len(self.avals) if self.prefix is None else (self.prefix, len(self.avals))
    self.avals[v] = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
    return v

  def inline(self, jaxpr, consts, inputs, scope='', source=()):
    env = dict(zip(jaxpr.constvars, map(Const, consts), strict=True))
    env.update(zip(jaxpr.invars, inputs, strict=True))
    read = lambda v: Const(v.val) if isinstance(v, core.Literal) else env[v]
    eqns = []
    for eqn in jaxpr.eqns:
      args = tuple(read(v) for v in eqn.invars)
      inner = '/'.join(filter(None, (scope, str(eqn.source_info.name_stack))))
      where = (eqn.source_info, *source)
      if eqn.primitive.name in INLINED:
        body, outputs = self.inline(*_open(eqn), args, inner, where)
        eqns += body
      else:
        outputs = tuple(self.new(v.aval) for v in eqn.outvars)
        body = self._body(eqn, inner, where) if eqn.primitive.name in CUSTOM | {'scan'} else None
        carry = _carry(eqn) if eqn.primitive.name == 'scan' else range(0)
        eqns.append(Eqn(eqn.primitive, args, outputs, eqn.params, inner, where, body, carry))
      env.update(zip(eqn.outvars, outputs, strict=True))
    return eqns, tuple(read(v) for v in jaxpr.outvars)

  def _body(self, eqn, scope, source):
    jaxpr, consts = _open(eqn)
    inputs = tuple(self.new(v.aval) for v in jaxpr.invars)
    eqns, outputs = self.inline(jaxpr, consts, inputs, scope, source)
    return Program(tuple(eqns), inputs, outputs, self.avals, {}, None)


def _carry(eqn):
  """The inputs of a scan that are carried. Versions of JAX say it differently; what is sliced has one axis more."""
  jaxpr, _ = _open(eqn)
  whole = lambda outside, inside: sum(v.aval.ndim == b.aval.ndim for v, b in zip(outside, inside, strict=True))
  end = whole(eqn.invars, jaxpr.invars)
  return range(end - whole(eqn.outvars, jaxpr.outvars), end)


def _open(eqn):
  jaxpr = eqn.params.get('jaxpr', eqn.params.get('call_jaxpr'))
  return (jaxpr.jaxpr, jaxpr.consts) if isinstance(jaxpr, core.ClosedJaxpr) else (jaxpr, ())

