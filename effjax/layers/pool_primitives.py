"""Pools as primitives: for the graph `reduce_window_max` and `reduce_window_sum`, with a formulation for each backend.

They have the names and parameters of lax's own, and `formulation`: 'lax', 'shifts' (`pool_shifts`), or None, which is
`lax` and its own derivatives except on the CPU, where it is what was measured to be fast. The linear maps of their
derivatives are primitives too, each the transpose of another, so that derivatives of any order and mode are such pools.
"""
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from effjax.errors import EffjaxError
from effjax.layers import pool_shifts
from effjax.layers.windows import Windows

FORMULATIONS = ('lax', 'shifts')
MOST_TAPS = 81  # entries of a window by shifts: the program grows with them, and lax gains on them


def bind(primitive: Primitive, x: Array, windows: Windows, formulation: str | None = None) -> Array:
  """A pool of NHWC images by `reduce_window_max` or `reduce_window_sum`; integers by lax.

  Raises:
    EffjaxError: an unknown formulation, or one that does not fit: shifts of integers, or of too large a window.

  >>> bind(reduce_window_sum, jnp.ones((1, 2, 2, 1)), Windows((2, 2), (1, 1), ((0, 0), (0, 0)))).item()
  4.0
  """
  _check(primitive.name, x, windows, formulation)
  params = dict(window_dimensions=(1, *windows.window, 1), window_strides=(1, *windows.strides, 1),
                padding=((0, 0), *windows.padding, (0, 0)), base_dilation=(1,) * 4, window_dilation=(1,) * 4)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    return _lax(primitive.name, x, params)
  return primitive.bind(x, **params, formulation=formulation)


def _check(name, x, windows, formulation):
  if formulation not in (None, *FORMULATIONS):
    raise EffjaxError(f'{name}: formulation={formulation!r} is unknown: choose from {FORMULATIONS}, or None for the '
                      'fastest')
  if formulation == 'shifts' and not (jnp.issubdtype(x.dtype, jnp.floating) and _few(windows)):
    raise EffjaxError(f"{name}: formulation='shifts' got {x.dtype} and window {windows.window}, wanted floats and up "
                      f'to {MOST_TAPS} entries: leave it out')


def _few(windows):
  return np.prod(windows.window) <= MOST_TAPS


def _lax(name, x, params):
  start, function = {'reduce_window_max': (lowest(x.dtype), lax.max), 'reduce_window_sum': (0, lax.add)}[name]
  return lax.reduce_window(x, np.asarray(start, x.dtype), function, **params)


def lowest(dtype: Any) -> float | int:
  """What a maximum starts from.

  >>> lowest(jnp.int8), lowest(jnp.float32)
  (-128, -inf)
  """
  return -np.inf if jnp.issubdtype(dtype, jnp.floating) else int(jnp.iinfo(dtype).min)


# --- what is computed: by lax and by shifts -----------------------------------------------------------------------

def _max_lax(x, **params):
  return _lax('reduce_window_max', x, params)


def _sum_lax(x, **params):
  return _lax('reduce_window_sum', x, params)


def _tangent_lax(t, x, **params):
  return jax.jvp(functools.partial(_max_lax, **params), (x,), (t,))[1]


def _gradient_lax(g, x, **params):
  return jax.vjp(functools.partial(_max_lax, **params), x)[1](g)[0]


def _transpose_lax(g, size, **params):
  x = jax.ShapeDtypeStruct((g.shape[0], *size, g.shape[3]), g.dtype)
  return jax.linear_transpose(functools.partial(_sum_lax, **params), x)(g)[0]


def _windows(params):
  return Windows(*(tuple(params[name][1:3]) for name in ('window_dimensions', 'window_strides', 'padding')))


def _fastest(name, cpu, windows):
  """As measured (projects/benchmarks/pools.py)."""
  padded_steps = any(map(any, windows.padding)) and max(windows.strides) > 1  # the padding costs more than the sums
  slow = not _few(windows) or (name == 'reduce_window_sum' and padded_steps)
  return 'shifts' if cpu and not slow else 'lax'


def _computed(name, by_lax, by_shifts, cpu, *args, formulation, size=None, **params):
  """One of the two, inside of a compiled function; `size` is there for those that need it."""
  windows, size = _windows(params), {} if size is None else {'size': size}
  formulation = formulation or _fastest(name, cpu, windows)
  return by_lax(*args, **size, **params) if formulation == 'lax' else by_shifts(*args, windows, **size)


# --- the primitives -----------------------------------------------------------------------------------------------

def _primitive(name: str, shape: Callable, by_lax: Callable, by_shifts: Callable) -> Primitive:
  """A function of NHWC arrays, of the type of the first; `shape(windows, *args, **params)` is height and width."""
  primitive = Primitive(name)
  pooled = lambda *args, **params: (args[0].shape[0], *shape(_windows(params), *args, **params), args[0].shape[3])
  primitive.def_abstract_eval(lambda *args, **params: args[0].update(shape=pooled(*args, **params)))
  primitive.def_impl(functools.partial(_eager, primitive))
  batching.primitive_batchers[primitive] = functools.partial(_folded, primitive)
  for cpu, platform in ((False, None), (True, 'cpu')):
    computed = functools.partial(_computed, name, by_lax, by_shifts, cpu)
    mlir.register_lowering(primitive, mlir.lower_fun(computed, multiple_results=False), platform)
  return primitive


def _eager(primitive, *args, **params):
  with jax.disable_jit(False):
    return _jitted(primitive, **params)(*args)


@functools.cache
def _jitted(primitive, **params):
  return jax.jit(functools.partial(primitive.bind, **params))


def _folded(primitive: Primitive, args: Sequence[Array], axes: Sequence[int | None], **params) -> tuple[Array, int]:
  """vmap: the mapped axis becomes a part of the batch."""
  size = next(x.shape[axis] for x, axis in zip(args, axes, strict=True) if axis is not None)
  args = [batching.bdim_at_front(x, axis, size) for x, axis in zip(args, axes, strict=True)]
  y = primitive.bind(*(x.reshape(-1, *x.shape[2:]) for x in args), **params)
  return y.reshape(size, -1, *y.shape[1:]), 0


_pooled = lambda windows, x, *_, **params: windows.counts(x.shape[1:3])

reduce_window_max = _primitive('reduce_window_max', _pooled, _max_lax, pool_shifts.largest)
_max_tangent = _primitive('max_pool_tangent', _pooled, _tangent_lax, pool_shifts.largest_tangent)
_max_gradient = _primitive('max_pool_gradient', lambda windows, g, x, **params: x.shape[1:3], _gradient_lax,
                           pool_shifts.largest_gradient)
reduce_window_sum = _primitive('reduce_window_sum', _pooled, _sum_lax, pool_shifts.total)
_sum_transpose = _primitive('sum_pool_transpose', lambda windows, g, size, **params: size, _transpose_lax,
                            pool_shifts.total_transpose)


def _each_other(one, other):
  """(t, x) -> y of t's kind: linear in t, of no derivative in x, the transpose of another such map."""
  def transpose(g, t, x, **params):
    return [ad.Zero(t.aval) if type(g) is ad.Zero else other.bind(g, x, **params), None]
  ad.defjvp(one, lambda tangent, t, x, **params: one.bind(tangent, x, **params), None)
  ad.primitive_transposes[one] = transpose


ad.defjvp(reduce_window_max, lambda t, x, **params: _max_tangent.bind(t, x, **params))
_each_other(_max_tangent, _max_gradient)
_each_other(_max_gradient, _max_tangent)
ad.deflinear2(reduce_window_sum, lambda g, x, **params: [_sum_transpose.bind(g, size=x.aval.shape[1:3], **params)])
ad.deflinear2(_sum_transpose, lambda g, x, size, **params: [reduce_window_sum.bind(g, **params)])
