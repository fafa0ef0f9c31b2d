"""A program written as devices like it: the same values to rounding, for `effjax.graph.places`."""
import math
from collections.abc import Callable

import jax
import numpy as np

from effjax.graph.functions import Function
from effjax.graph.trace import Const, Eqn, Program, Var, needed, users, weights

_SHAPES = frozenset({'reshape', 'squeeze', 'expand_dims', 'broadcast_in_dim'})


def simplified(program: Program) -> Program:
  """Three ways of writing are brought to the usual one.

  A weight times an activation, turned (`(w @ x.T).T`, as `vmap` of `w @ x` gives it), is activation times weight.
  Reshapes that lead back to a shape are dropped. `a / sqrt(b)` is `a rsqrt(b)`, where nothing else reads the root.

  >>> import jax.numpy as jnp
  >>> from effjax.graph.trace import trace
  >>> program = trace(lambda w, x: jax.vmap(lambda x: w @ x)(x), jnp.ones((2, 3)), jnp.ones((1, 3)))
  >>> [eqn.name for eqn in program.eqns], [eqn.name for eqn in simplified(program).eqns]
  (['dot_general', 'transpose'], ['dot_general'])
  """
  return _products(_straight(_swapped(program)))


def variables(program: Program) -> Program:
  """The program with the float arrays that it closes over as variables, copies of them, which can have taps.

  >>> import jax.numpy as jnp
  >>> from effjax.graph.trace import trace
  >>> table = np.ones((1, 3), np.float32)
  >>> [eqn.name for eqn in variables(trace(lambda p, x: x + table, {}, jnp.ones((1, 3)))).eqns]
  ['copy', 'add']
  """
  avals, eqns, number = dict(program.avals), [], max(program.avals, default=0)
  for eqn in program.eqns:
    inputs = list(eqn.inputs)
    for i, v in enumerate(inputs):
      if isinstance(v, Const) and np.size(v.value) > 1 and jax.numpy.issubdtype(v.value.dtype, np.inexact):
        inputs[i] = number = number + 1
        avals[number] = jax.ShapeDtypeStruct(v.value.shape, v.value.dtype)
        eqns.append(Eqn(jax.lax.copy_p, (v,), (number,), {}, eqn.scope, eqn.source))
    eqns.append(eqn._replace(inputs=tuple(inputs)))
  return program._replace(eqns=tuple(eqns), avals=avals)


def _swapped(program: Program) -> Program:
  held, readers, made = weights(program), users(program), {}
  for eqn in program.eqns:
    after = [program.eqns[i] if i >= 0 else None for i in readers.get(eqn.outputs[0], [])] if eqn.outputs else []
    if eqn.name == 'dot_general' and len(after) == 1 and after[0] is not None and _turns(program, held, eqn, after[0]):
      (left, right), batch = eqn.params['dimension_numbers']
      params = {**eqn.params, 'dimension_numbers': ((right, left), batch)}
      made[after[0].outputs[0]] = eqn._replace(inputs=eqn.inputs[::-1], outputs=after[0].outputs, params=params)
  eqns = [made.get(eqn.outputs[0], eqn) if eqn.outputs else eqn for eqn in program.eqns]
  return program._replace(eqns=tuple(needed(eqns, program.outputs)))


def _turns(program, held, eqn, after) -> bool:
  """True for a weight on the left, and a transpose that brings its axes behind those of the activation."""
  (left, _), (batch, _) = eqn.params['dimension_numbers']
  weight, other = eqn.inputs
  known = lambda v: isinstance(v, Const) or v in held
  if after.name != 'transpose' or batch or not known(weight) or known(other):
    return False
  free, n = program.avals[weight].ndim - len(left), program.avals[eqn.outputs[0]].ndim
  return tuple(after.params['permutation']) == (*range(free, n), *range(free))


def _straight(program: Program) -> Program:
  """Without changes of shape that are undone by the next ones."""
  avals, origin, alias, eqns = program.avals, {}, {}, []
  read = lambda v: v if isinstance(v, Const) else alias.get(v, v)
  for eqn in program.eqns:
    eqn = eqn._replace(inputs=tuple(map(read, eqn.inputs)))
    v = eqn.inputs[0] if eqn.name in _SHAPES and len(eqn.inputs) == 1 and not isinstance(eqn.inputs[0], Const) else None
    if v is not None and math.prod(avals[v].shape) == math.prod(avals[eqn.outputs[0]].shape):
      first: Var = origin.get(v, v)
      origin[eqn.outputs[0]] = first
      if avals[first].shape == avals[eqn.outputs[0]].shape:
        alias[eqn.outputs[0]] = first
        continue
    eqns.append(eqn)
  outputs = tuple(map(read, program.outputs))
  return program._replace(eqns=tuple(needed(eqns, outputs)), outputs=outputs)


def _products(program: Program) -> Program:
  made, readers = {v: eqn for eqn in program.eqns for v in eqn.outputs}, users(program)
  root: dict[Var, Eqn] = {}  # of each divisor
  for eqn in program.eqns:
    if eqn.name == 'div' and not any(isinstance(v, Const) for v in eqn.inputs):
      root[eqn.outputs[0]] = _root(made, readers, eqn.inputs[1])
  turned = {e.outputs[0] for e in root.values() if e is not None}
  eqns = [_reciprocal(eqn) if eqn.outputs and eqn.outputs[0] in turned else
          _as(eqn, jax.lax.mul, 2) if eqn.outputs and root.get(eqn.outputs[0]) else eqn
          for eqn in program.eqns]
  return program._replace(eqns=tuple(eqns))


def _root(made, readers, v) -> Eqn | None:
  """The square root that a divisor is, perhaps of another shape, if it is read once on the way."""
  while v in made and len(readers[v]) == 1:
    if isinstance(made[v].primitive, Function) and made[v].name == 'sqrt':
      return made[v]
    v = made[v].inputs[0] if made[v].name in _SHAPES else None
  return None


def _reciprocal(eqn: Eqn) -> Eqn:
  """`rsqrt` for a recognised `sqrt`."""
  *before, last = eqn.body.eqns
  body = eqn.body._replace(eqns=(*before, _as(last, jax.lax.rsqrt, 1)))
  return eqn._replace(primitive=Function('rsqrt'), body=body)


def _as(eqn: Eqn, function: Callable, inputs: int) -> Eqn:
  """The equation with another primitive."""
  traced, = jax.make_jaxpr(function)(*(1.,) * inputs).eqns
  return eqn._replace(primitive=traced.primitive, params=traced.params)
