"""Cross-layer equalisation: the factor that two layers may exchange, chosen to give their channels equal ranges."""
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax import tree
from effjax.errors import EffjaxError
from effjax.graph.channels import Channels, channels
from effjax.graph.profile import profile
from effjax.tree import Path, PyTree

_FAR = 2.**20  # exact in floating point, and far beyond any clamp


def equalize(fn: Callable, params: PyTree, *args: PyTree, sweeps: int = 20) -> PyTree:
  """The same function with other weights: channel i of a layer divided by s_i, what reads it multiplied.

  `s_i = sqrt(r1_i / r2_i)` (the paper's `sqrt(r1 r2) / r2`), r1 and r2 the largest weights that make and that read the
  channel: afterwards both are `sqrt(r1 r2)`. In turn over all groups of channels of the graph, as a layer is in two.
  Which groups may be scaled is found by trial: with the factor 2^20 and with 2^-20 the outputs keep every bit, as they
  do behind ReLU, pools and sums and not behind ReLU6, sigmoids or BatchNorm: fold it first.

  Args:
    fn: any JAX function in inference mode.
    params, args: its parameters, and a batch that the trial is run on.
    sweeps: over all groups.

  Raises:
    EffjaxError: there is no group of channels that can be scaled; sweeps below 1.

  Differs from the paper: a channel that several layers make or read (a residual stream) is scaled for all of them; a
  depthwise kernel stays as it is, between the two that are equalised; biases scale along but are not absorbed into the
  next layer; groups are found in the graph.

  Source: Nagel, van Baalen, Blankevoort, Welling, "Data-Free Quantization Through Weight Equalization and Bias
  Correction", ICCV 2019, arXiv:1906.04721.

  >>> params = {'a': jnp.array([[4., 1.]]), 'b': jnp.array([[1.], [1.]])}
  >>> found = equalize(lambda p, x: jax.nn.relu(x @ p['a']) @ p['b'], params, jnp.ones((1, 1)))
  >>> found['a'], found['b'].T
  (Array([[2., 1.]], dtype=float32), Array([[2., 1.]], dtype=float32))
  """
  if sweeps < 1:
    raise EffjaxError(f'equalize: sweeps must be at least 1, got {sweeps}')
  found = channels(fn, params, *args)
  rows = profile(fn, params, *args).rows
  passing = {row.path for row in rows if row.kind == 'depthwise'}
  layers = {row.path for row in rows if row.path is not None} - passing
  free = [group for group in _groups(found) if _is_free(fn, params, args, found, passing, layers, group)]
  if not free:
    raise EffjaxError(f'equalize: none of {len(_groups(found))} groups of channels can be scaled: wanted layers joined '
                      'by ReLU, pools or sums; fold BatchNorm first, and put ReLU for ReLU6')

  def sweep(_, log):
    for group in free:
      log = log + jnp.where(group, _half_ratio(scaled(found, params, jnp.exp2(log), passing), found, layers), 0.)
    return log

  solve = jax.jit(lambda: jax.lax.fori_loop(0, sweeps, sweep, jnp.zeros(found.size, jnp.float32)))
  return scaled(found, params, jnp.exp2(solve()), passing)


def scaled(found: Channels, params: PyTree, factor: Float[Array, ' n'], passing: set[Path]) -> PyTree:
  """What makes channel i divided by `factor[i]`, what reads it multiplied; `passing` leaves do neither."""
  factor = jnp.append(factor, 1.)  # -1, the last, is what no channel is

  def one(path, w):
    wide = w.astype(jnp.float32)
    for axis, reads in _axes(found, path, passing):
      s = factor[found.members[path][axis]].reshape([-1 if i == axis else 1 for i in range(w.ndim)])
      wide = wide * (s if reads else 1 / s)
    return wide.astype(w.dtype)

  return tree.map_at(one, params, [path for path in found.members if _axes(found, path, passing)])


def _axes(found, path, passing):
  """(axis, whether it is read) of the axes of a leaf that have channels."""
  reads = found.consumers.get(path, ())
  mine = [axis for axis, each in enumerate(found.members[path]) if (each >= 0).any()]
  return [] if path in passing else [(axis, axis in reads) for axis in mine]


def _groups(found):
  return [found.groups == group for group in np.unique(found.groups)]


def _is_free(fn, params, args, found, passing, layers, group):
  """True if the group has something that makes and something that reads it, and a factor leaves the outputs alone."""
  own = np.flatnonzero(group)
  sides = {reads for path in layers for axis, reads in _axes(found, path, passing)
           if np.isin(found.members[path][axis], own).any()}
  if sides != {True, False}:
    return False
  run = jax.jit(lambda factor: fn(scaled(found, params, factor, passing), *args))
  got = [run(jnp.where(group, jnp.float32(far), 1.)) for far in (1., _FAR, 1 / _FAR)]
  same = lambda a, b: bool(jnp.array_equal(a, b))
  return all(jax.tree.all(jax.tree.map(same, got[0], other)) for other in got[1:])


def _half_ratio(params, found, layers):
  """`log2 sqrt(r1 / r2)` of each channel, 0 where one of them is 0; biases count for neither."""
  top = {side: jnp.zeros(found.size + 1, jnp.float32) for side in (False, True)}
  leaves = tree.leaves(params)
  for path, w in ((path, leaves[path]) for path in sorted(layers)):
    for axis, reads in _axes(found, path, ()):
      largest = jnp.max(jnp.abs(w.astype(jnp.float32)), [i for i in range(w.ndim) if i != axis])
      top[reads] = top[reads].at[found.members[path][axis]].max(largest)
  made, read = top[False][:-1], top[True][:-1]
  there = (made > 0) & (read > 0)
  one = jnp.ones_like(made)
  return jnp.where(there, .5 * (jnp.log2(jnp.where(there, made, one)) - jnp.log2(jnp.where(there, read, one))), 0.)
