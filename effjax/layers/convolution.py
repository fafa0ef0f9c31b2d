"""Convolutions as primitives: for the graph `conv_general_dilated`, with a formulation for each backend and shape.

A convolution is the trilinear form `<g, conv(x, w)>`. Its three derivatives (the output of x and w, the gradient of x
from g and w, the gradient of w from x and g) are primitives, each linear in both of its arguments, and the transposes
of one another; so derivatives of any order, forward and reverse, are made of these three. The first has the name and
parameters of lax's convolution, and `formulation`: a name, or None, which is lax on GPU and TPU and on the CPU what
`fastest` says.
"""
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from effjax.errors import EffjaxError
from effjax.layers.conv_formulations import FORMULATIONS, Conv, fastest

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def conv_general_dilated(lhs: Array, rhs: Array, window_strides: Sequence[int],
                         padding: str | Sequence[tuple[int, int]], lhs_dilation: Sequence[int] | None = None,
                         rhs_dilation: Sequence[int] | None = None,
                         dimension_numbers: Any = None, feature_group_count: int = 1, batch_group_count: int = 1,
                         precision: Any = None, preferred_element_type: Any = None, *,
                         formulation: str | None = None) -> Array:
  """`jax.lax.conv_general_dilated`, in which depthwise, grouped and 1x1 convolutions of NHWC images are fast on a CPU.

  Takes what lax takes; `flax.linen.Conv(conv_general_dilated=...)` is the place for it. All else goes to lax.

  Args:
    formulation: one of `conv_formulations.FORMULATIONS`, for measurements; None chooses.

  Raises:
    EffjaxError: channels that do not fit the kernel or the groups; an unknown formulation, or one that does not fit.

  >>> x, w = jnp.ones((1, 4, 4, 6)), jnp.ones((3, 3, 1, 6))
  >>> conv_general_dilated(x, w, (1, 1), 'VALID', dimension_numbers=DIMENSIONS, feature_group_count=6)[0, 0, 0, 0]
  Array(9., dtype=float32)
  """
  params = dict(lhs_dilation=tuple(lhs_dilation or (1,) * (lhs.ndim - 2)),
                rhs_dilation=tuple(rhs_dilation or (1,) * (lhs.ndim - 2)), window_strides=tuple(window_strides),
                dimension_numbers=lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers),
                feature_group_count=feature_group_count, batch_group_count=batch_group_count,
                precision=_precision(precision), preferred_element_type=preferred_element_type)
  if isinstance(padding, str):
    dims = params['dimension_numbers']
    spatial = lambda shape, spec: [shape[i] for i in spec[2:]]
    size = [(k - 1) * d + 1 for k, d in zip(spatial(rhs.shape, dims.rhs_spec), params['rhs_dilation'])]
    padding = lax.padtype_to_pads(spatial(lhs.shape, dims.lhs_spec), size, window_strides, padding)
  params['padding'] = tuple((int(low), int(high)) for low, high in padding)
  _check(lhs.shape, rhs.shape, params)
  if not ours(lhs, rhs, params):
    if formulation not in (None, 'lax'):
      raise EffjaxError(f'convolution: formulation={formulation!r} of x {lhs.shape} and w {rhs.shape}: only depthwise, '
                        "grouped and 1x1 convolutions of floating-point NHWC images have one: leave it out")
    return lax.conv_general_dilated(lhs, rhs, **params)
  _check_formulation(Conv.of(lhs.shape, rhs.shape, params), formulation)
  return forward.bind(lhs, rhs, **params, formulation=formulation)


def ours(x: Any, w: Any, params: dict[str, Any]) -> bool:
  """Whether there is anything to choose: depthwise, grouped or 1x1, NHWC and HWIO, nothing but the convolution."""
  p = params
  layout = tuple(p['dimension_numbers']) == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
  plain = layout and tuple(p['lhs_dilation']) == (1, 1) and p['batch_group_count'] == 1
  floats = x.dtype == w.dtype and jnp.issubdtype(x.dtype, jnp.floating) and p['preferred_element_type'] is None
  inside = plain and floats and min(map(min, p['padding'])) >= 0
  return inside and (p['feature_group_count'] > 1 or w.shape[2] == 1 or w.shape[:2] == (1, 1)) and 0 not in x.shape


def _precision(precision):
  """As lax keeps it: hashable."""
  return tuple(map(lax.Precision, precision)) if isinstance(precision, list | tuple) else precision


def _check(x, w, p):
  dims, groups = p['dimension_numbers'], p['feature_group_count']
  cin, each, cout = x[dims.lhs_spec[1]], w[dims.rhs_spec[1]], w[dims.rhs_spec[0]]
  if cin != each * groups or cout % groups:
    raise EffjaxError(f'convolution: x {x} has {cin} channels and w {w} takes {each} in each of {groups} groups, for '
                      f'{cout} outputs: wanted {each * groups} channels, and outputs that the groups divide')


def _check_formulation(conv, formulation):
  if formulation is None or (formulation in FORMULATIONS and FORMULATIONS[formulation].fits(conv)):
    return
  fitting = [name for name, each in FORMULATIONS.items() if each.fits(conv)]
  raise EffjaxError(f'convolution: formulation={formulation!r} is unknown or does not fit {conv}: choose from '
                    f'{fitting}, or None for the fastest')


# --- the primitives -----------------------------------------------------------------------------------------------

def _lax(x, w, params):
  return lax.conv_general_dilated(x, w, **{k: v for k, v in params.items() if k not in ('formulation', 'shape')})


def _lax_input(g, w, params):
  x = jax.ShapeDtypeStruct(params['shape'], g.dtype)
  return jax.linear_transpose(lambda x: _lax(x, w, params), x)(g)[0]


def _lax_kernel(x, g, params):
  w = jax.ShapeDtypeStruct(params['shape'], g.dtype)
  return jax.linear_transpose(lambda w: _lax(x, w, params), w)(g)[0]


def _primitive(name: str, part: str, by_lax: Callable, conv_of: Callable, folds: int | None) -> Primitive:
  """One of the three: `part` is its name within a formulation; `folds` the argument whose batch a mapped axis joins."""
  primitive = Primitive(name)

  def computed(cpu, *args, **params):
    conv = conv_of(*(a.shape for a in args), params)
    chosen = params['formulation'] or (fastest(conv, part) if cpu else 'lax')
    return by_lax(*args, params) if chosen == 'lax' else getattr(FORMULATIONS[chosen], part)(*args, conv)

  primitive.def_abstract_eval(lambda *args, **params: args[0].update(
      shape=params['shape'] if 'shape' in params else jax.eval_shape(lambda *a: by_lax(*a, params), *args).shape))
  primitive.def_impl(functools.partial(_eager, primitive))
  batching.primitive_batchers[primitive] = functools.partial(_batched, primitive, by_lax, folds)
  for cpu, platform in ((False, None), (True, 'cpu')):
    rule = mlir.lower_fun(functools.partial(computed, cpu), multiple_results=False)
    mlir.register_lowering(primitive, rule, platform)
  return primitive


def _eager(primitive, *args, **params):
  with jax.disable_jit(False):
    return _jitted(primitive, **params)(*args)


@functools.cache
def _jitted(primitive, **params):
  return jax.jit(functools.partial(primitive.bind, **params))


def _batched(primitive, by_lax, folds, args, axes, **params):
  """vmap: of images alone, the mapped axis becomes a part of their batch; else lax's own."""
  if folds is None or [axis is not None for axis in axes] != [i == folds for i in range(2)]:
    return jax.vmap(lambda *a: by_lax(*a, params), axes)(*args), 0
  x = batching.bdim_at_front(args[folds], axes[folds], args[folds].shape[axes[folds]])
  mapped, args = x.shape[0], list(args)
  args[folds] = x.reshape(-1, *x.shape[2:])
  if 'shape' in params:
    params['shape'] = (args[folds].shape[0], *params['shape'][1:])
  y = primitive.bind(*args, **params)
  return y.reshape(mapped, -1, *y.shape[1:]), 0


forward = _primitive('conv_general_dilated', 'forward', _lax, Conv.of, 0)
input_gradient = _primitive('conv_input_gradient', 'input_gradient', _lax_input,
                            lambda g, w, params: Conv.of(params['shape'], w, params), 0)
kernel_gradient = _primitive('conv_kernel_gradient', 'kernel_gradient', _lax_kernel,
                             lambda x, g, params: Conv.of(x, params['shape'], params), None)


def _without(params):
  return {k: v for k, v in params.items() if k != 'shape'}


ad.defbilinear(forward, lambda g, x, w, **p: input_gradient.bind(g, w, **p, shape=x.aval.shape),
               lambda g, x, w, **p: kernel_gradient.bind(x, g, **p, shape=w.aval.shape))
ad.defbilinear(input_gradient, lambda t, g, w, **p: forward.bind(t, w, **_without(p)),
               lambda t, g, w, **p: kernel_gradient.bind(t, g, **{**p, 'shape': w.aval.shape}))
ad.defbilinear(kernel_gradient, lambda t, x, g, **p: input_gradient.bind(g, t, **{**p, 'shape': x.aval.shape}),
               lambda t, x, g, **p: forward.bind(x, t, **_without(p)))
