"""Equations that the converter gets wrong, written otherwise before it sees them."""
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from effjax.graph.trace import CUSTOM, Const, Eqn, Program, evaluate, execute, users


def convertible(program: Program, inputs: Sequence[jax.Array]) -> list[jax.Array]:
  """The outputs of a traced function, by equations that the converter gets right.

  A transposed convolution whose image is padded more on one side than on the other (SAME with an odd kernel), which
  would come out too large, is computed whole and cropped. A padded sum over windows that is divided by a number
  (an average that counts the padding), for which most devices have no kernel, is padded first: it becomes a pool.
  What chooses among formulations is lax's own.

  >>> from effjax.graph.trace import trace
  >>> w = jnp.ones((3, 3, 1, 1))
  >>> program = trace(lambda w, x: lax.conv_transpose(x, w, (2, 2), 'SAME'), w, jnp.ones((1, 4, 4, 1)))
  >>> convertible(program, [w, jnp.ones((1, 4, 4, 1))])[0].shape
  (1, 8, 8, 1)
  """
  readers = users(program)

  def bind(eqn: Eqn, args: list) -> Sequence[jax.Array]:
    if eqn.name in CUSTOM:  # no derivative is asked for
      return convertible(eqn.body, args)
    if 'formulation' in eqn.params:
      eqn = eqn._replace(params=eqn.params | {'formulation': 'lax'})
    if eqn.name == 'conv_general_dilated' and _uneven(eqn.params):
      return [_cropped(eqn, *args)]
    if eqn.name == 'reduce_window_sum' and _averages(program, readers, eqn):
      return _padded_sum(eqn, *args)
    return execute(eqn, args)

  return evaluate(program, inputs, bind)


def _uneven(p):
  return max(p['lhs_dilation']) > 1 and any(low != high for low, high in p['padding'])


def _cropped(eqn, x, w):
  """The transposed convolution with as much padding as reaches any input, then what was asked for of it."""
  p, spec = eqn.params, eqn.params['dimension_numbers']
  whole = [(w.shape[axis] - 1) * d for axis, d in zip(spec.rhs_spec[2:], p['rhs_dilation'], strict=True)]
  if max(p['window_strides']) > 1 or any(max(pad) > most for pad, most in zip(p['padding'], whole)):
    return execute(eqn, [x, w])[0]
  y, = execute(eqn._replace(params=p | {'padding': tuple((n, n) for n in whole)}), [x, w])
  start, limit = [0] * y.ndim, list(y.shape)
  for axis, (low, high), most in zip(spec.out_spec[2:], p['padding'], whole, strict=True):
    start[axis], limit[axis] = most - low, y.shape[axis] - (most - high)
  return lax.slice(y, start, limit)


def _averages(program, readers, eqn):
  """A padded sum, and everything that reads it divides it by a number."""
  reading = [program.eqns[i] if i >= 0 else None for i in readers.get(eqn.outputs[0], [])]
  scalar = lambda v: np.ndim(v.value) == 0 if isinstance(v, Const) else program.avals[v].shape == ()
  padded = any(map(any, eqn.params['padding'])) and set(eqn.params['base_dilation']) == {1}
  return padded and all(e is not None and e.name == 'div' and scalar(e.inputs[1]) for e in reading)


def _padded_sum(eqn, x):
  x = lax.pad(x, jnp.zeros((), x.dtype), [(low, high, 0) for low, high in eqn.params['padding']])
  return execute(eqn._replace(params=eqn.params | {'padding': ((0, 0),) * x.ndim}), [x])
