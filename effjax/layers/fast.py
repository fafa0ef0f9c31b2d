"""The convolutions of any function as `conv_general_dilated` of this folder runs them."""
import functools
from collections.abc import Callable

import jax
from jax import lax

from effjax.graph.trace import evaluate, execute, scan, trace
from effjax.layers.conv_primitives import forward
from effjax.layers.convolution import ours


def fast(fn: Callable) -> Callable:
  """The same function `fn(params, *args)`, with lax's depthwise, grouped and 1x1 convolutions as fast ones.

  For models that call lax, as Flax's own layers do; those of `effjax.layers` are fast without it. It goes outermost,
  right before the function is differentiated. On other backends than the CPU it is `fn`. Convolutions within custom
  derivatives stay. Equal up to the rounding of another order of summation.

  >>> import jax.numpy as jnp
  >>> conv = lambda w, x: lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  >>> jax.make_jaxpr(fast(conv))(jnp.ones((1, 1, 3, 4)), jnp.ones((1, 8, 8, 3))).eqns[0].params['formulation'] is None
  True
  """
  if jax.default_backend() != 'cpu':
    return fn

  @functools.wraps(fn)
  def run(params, *args):
    program = trace(fn, params, *args)
    out = evaluate(program, jax.tree.leaves((params, args)), _faster)
    return jax.tree.unflatten(program.out_tree, out)
  return run


def _faster(eqn, args):
  if eqn.name == 'scan':
    return scan(eqn, args, lambda inputs: (evaluate(eqn.body, inputs, _faster), ()))[0]
  if eqn.primitive is lax.conv_general_dilated_p and ours(*args, eqn.params):
    return [forward.bind(*args, **{k: v for k, v in eqn.params.items() if k != 'out_sharding'}, formulation=None)]
  return execute(eqn, args)
