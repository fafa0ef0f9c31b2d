"""What differs between the examples of a batch and matters to the result."""
import jax.numpy as jnp

from effjax.errors import EffjaxError
from effjax.graph.trace import Const, Program, Var


def live(program: Program) -> set[Var]:
  """Variables that differ between examples (axis 0 of inputs) and lead to an output that does.

  Raises:
    EffjaxError: no output does.

  >>> from effjax.graph.trace import trace
  >>> sorted(live(trace(lambda p, x: (x * 2., jnp.ones(3)), {}, jnp.ones((2, 1)))))
  [0, 1]
  """
  varying = {v for v in program.inputs if v not in program.paths
             and jnp.issubdtype(program.avals[v].dtype, jnp.inexact) and program.avals[v].ndim}
  _spread(program, varying)
  found: set[Var] = set()
  _needed(program, varying, found)
  if not found:
    raise EffjaxError('taps: no output of the function differs between the examples of a batch (axis 0): '
                      'give a function that returns logits, not their loss')
  return found


def _spread(program, varying):
  """Adds to `varying` what depends on it."""
  for eqn in program.eqns:
    over_batch = eqn.name.startswith('reduce_') and 0 in eqn.params.get('axes', ())
    if over_batch or not any(v in varying for v in eqn.inputs if not isinstance(v, Const)):
      continue
    varying.update(eqn.outputs)
    if eqn.name == 'scan':
      before = -1
      varying.update(b for b, v in zip(eqn.body.inputs, eqn.inputs) if not isinstance(v, Const) and v in varying)
      while before != len(varying):  # what is carried may vary from the second iteration on
        before = len(varying)
        _spread(eqn.body, varying)
        carry = zip([eqn.body.inputs[i] for i in eqn.carry], eqn.body.outputs)
        varying.update(b for b, v in carry if not isinstance(v, Const) and v in varying)


def _needed(program, varying, live):
  """Adds to `live` what varies and leads to an output of the program."""
  live.update(v for v in program.outputs if not isinstance(v, Const) and v in varying)
  for eqn in reversed(program.eqns):
    if not live.isdisjoint(eqn.outputs):
      live.update(v for v in eqn.inputs if not isinstance(v, Const) and v in varying)
      if eqn.name == 'scan':
        _needed(eqn.body, varying, live)
