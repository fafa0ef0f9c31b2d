"""Bias correction: what rounding weights shifts in a layer's mean output is taken out of its bias."""
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax import tree
from effjax.errors import EffjaxError
from effjax.graph.trace import Const, evaluate, flatten, needed, trace, weights
from effjax.tree import Path, PyTree

_PRODUCTS = ('conv_general_dilated', 'dot_general')
_SPREAD = ('convert_element_type', 'reshape', 'transpose', 'squeeze', 'expand_dims', 'broadcast_in_dim', 'name')
_THROUGH = ('add', 'sub', 'mul', 'div', *_SPREAD)


def bias_correction(fn: Callable, params: PyTree, quantized: PyTree, batches: Iterable[PyTree]) -> PyTree:
  """`quantized` with biases `b - (E[y_q] - E[y])`, y what the layer gives before its activation, by channel.

  Empirical: from the outputs on data, layer after layer, so that each sees what the corrected layers before it give. A
  bias is any leaf that is added to a product, BatchNorm's between them or not.

  Args:
    fn: any JAX function in inference mode.
    params: the float parameters. quantized: the same tree with rounded weights, e.g. of `deployed`.
    batches: of real data: each the argument after the parameters, or a tuple of all of them. All have one weight.

  Raises:
    EffjaxError: no batch; no bias that is added to a product.

  Differs from the paper: activations are float in both; the analytic form, which wants BatchNorm's statistics, is left
  out. Runs the network once for each bias and batch.

  Source: Nagel, van Baalen, Blankevoort, Welling, ICCV 2019, arXiv:1906.04721, section 4.2 and appendix D.

  >>> fn = lambda p, x: x @ p['w'] + p['b']
  >>> params = {'w': jnp.array([[.5]]), 'b': jnp.zeros((1, 1))}
  >>> bias_correction(fn, params, params | {'w': jnp.ones((1, 1))}, [jnp.full((2, 1), 2.)])['b']
  Array([[-1.]], dtype=float32)
  """
  batches = [batch if isinstance(batch, tuple) else (batch,) for batch in batches]
  if not batches:
    raise EffjaxError('bias_correction: no batch was given: wanted at least one; an iterator is empty once it was read')
  look = jax.jit(lambda params, args: mean_outputs(fn, params, *args))
  pooled = lambda *each: sum(each) * (1 / len(each))
  mean = lambda params: jax.tree.map(pooled, *(look(params, args) for args in batches))
  wanted = mean(params)
  if not wanted:
    raise EffjaxError('bias_correction: no leaf is added to the result of a convolution or product: give the layers '
                      'biases, zeros if need be')
  for path in wanted:
    shift = wanted[path] - mean(quantized)[path]
    move = lambda path, b, shift=shift: (b.astype(jnp.float32) + shift).astype(b.dtype)
    quantized = tree.map_at(move, quantized, [path])
  return quantized


def mean_outputs(fn: Callable, params: PyTree, *args: PyTree) -> dict[Path, Float[Array, '...']]:
  """For each bias, in execution order, the mean of what it is added to plus itself, in its own shape.

  >>> found = mean_outputs(lambda p, x: x @ p['w'] + p['b'], {'w': jnp.eye(2), 'b': jnp.ones((1, 2))}, jnp.eye(2))
  >>> found['b']
  Array([[1.5, 1.5]], dtype=float32)
  """
  program = flatten(trace(fn, params, *args))
  sums = _biased(program)
  out = program._replace(outputs=tuple(v for _, v, _ in sums))
  values = evaluate(out, jax.tree.leaves((params, *args)))
  given = tree.leaves(params)
  each = zip(sums, values, strict=True)
  return {path: _per_entry(program, operand, path, given, y) for (path, _, operand), y in each}


def _biased(program):
  """(path of the bias, sum, the bias as it is added) of each addition of a leaf to what a product made."""
  leaf, made, found = weights(program), set(), {}
  by_output = {v: eqn for eqn in program.eqns for v in eqn.outputs}
  for eqn in program.eqns:
    read = [v for v in eqn.inputs if not isinstance(v, Const) and v not in leaf]
    own = [v for v in eqn.inputs if not isinstance(v, Const) and v in leaf]
    if eqn.name in _PRODUCTS and read and own or (eqn.name in _THROUGH and len(read) == 1 and read[0] in made):
      made.update(v for v in eqn.outputs if v not in leaf)
    bias = None
    if eqn.name == 'add' and len(own) == len(read) == 1 and read[0] in made:
      bias = _unit(program, by_output, own[0])
    if bias is not None:
      found.setdefault(program.paths[bias], (program.paths[bias], eqn.outputs[0], own[0]))
  return list(found.values())


def _unit(program, by_output, v):
  """The leaf that `v` is, spread, with something subtracted from it maybe; None if it is made in another way."""
  if isinstance(v, Const) or v in program.paths:
    return None if isinstance(v, Const) else v
  eqn = by_output[v]
  if eqn.name in _SPREAD:
    return _unit(program, by_output, eqn.inputs[0])
  found = [_unit(program, by_output, u) for u in eqn.inputs[:1 if eqn.name == 'sub' else 2 if eqn.name == 'add' else 0]]
  return next((u for u in found if u is not None), None)


def _per_entry(program, operand, path, given, y):
  """The mean of y over what each entry of the bias is added to: the transpose of how it is spread."""
  v = next(v for v, other in program.paths.items() if other == path)
  values = {u: given[other] for u, other in program.paths.items()}
  part = program._replace(eqns=tuple(needed(program.eqns, [operand])), outputs=(operand,), inputs=tuple(values))

  def spread(b):
    return jnp.broadcast_to(evaluate(part, [b if u == v else value for u, value in values.items()])[0], y.shape)

  _, pull = jax.vjp(spread, given[path])
  total, count = (pull(each.astype(y.dtype))[0].astype(jnp.float32) for each in (y, jnp.ones_like(y)))
  return total * (1 / count)
