"""Convolutions that are fast on CPUs too, differentiable in every mode and order."""
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from effjax.errors import EffjaxError
from effjax.layers import conv_primitives
from effjax.layers.conv_formulations import FORMULATIONS
from effjax.layers.conv_shape import Conv, Pair

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def conv_general_dilated(lhs: Array, rhs: Array, window_strides: Sequence[int], padding: str | Sequence[Pair],
                         lhs_dilation: Sequence[int] | None = None, rhs_dilation: Sequence[int] | None = None,
                         dimension_numbers: Any = None, feature_group_count: int = 1, batch_group_count: int = 1,
                         precision: lax.PrecisionLike = None, preferred_element_type: Any = None, *,
                         formulation: str | None = None) -> Array:
  """`jax.lax.conv_general_dilated`, in which depthwise, grouped and 1x1 convolutions of NHWC images are fast on CPUs.

  It takes what lax's takes, as in `flax.linen.Conv(conv_general_dilated=...)`. What is none of these is lax's own.

  Args:
    formulation: 'shifts' (depthwise: a sum of shifted slices), 'matmul' (1x1), for groups 'split' (each by itself),
      'rows' (matrix products over the kernel's columns; strides 1) or 'dense' (1x1: one product, with zeros), 'lax', or
      None: on the CPU the fastest, else lax.

  Raises:
    EffjaxError: channels that do not fit the kernel, or that groups do not divide; an unknown formulation, or one that
      does not fit.

  >>> x, w = jnp.ones((1, 4, 4, 6)), jnp.ones((3, 3, 1, 6))
  >>> conv_general_dilated(x, w, (1, 1), 'VALID', dimension_numbers=DIMENSIONS, feature_group_count=6)[0, 0, 0, 0]
  Array(9., dtype=float32)
  """
  _check(lhs, rhs, lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers), feature_group_count)
  params = dict(
      window_strides=tuple(window_strides), padding=padding if isinstance(padding, str) else tuple(map(tuple, padding)),
      lhs_dilation=lhs_dilation and tuple(lhs_dilation), rhs_dilation=rhs_dilation and tuple(rhs_dilation),
      dimension_numbers=dimension_numbers, feature_group_count=feature_group_count, batch_group_count=batch_group_count,
      precision=precision, preferred_element_type=preferred_element_type)
  found = _of_lax(*(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (lhs, rhs)), **params)
  if not ours(lhs, rhs, found):
    if formulation not in (None, 'lax'):
      raise EffjaxError(f'convolution: formulation={formulation!r} of x {lhs.shape} and w {rhs.shape}: only depthwise, '
                        'grouped and 1x1 convolutions of floating-point NHWC images have one: leave it out')
    return lax.conv_general_dilated(lhs, rhs, **params)
  _check_formulation(Conv.of(lhs.shape, rhs.shape, found), formulation)
  return conv_primitives.forward.bind(*_varying(lhs, rhs), **found, formulation=formulation)


def ours(x: Any, w: Any, params: dict[str, Any]) -> bool:
  """Whether lax's parameters leave a choice: depthwise, grouped or 1x1, NHWC and HWIO, nothing but a convolution.

  >>> conv = lambda x, w: lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=DIMENSIONS)
  >>> x, w = jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 8))
  >>> ours(x, w, jax.make_jaxpr(conv)(x, w).eqns[0].params)
  False
  """
  layout = tuple(params['dimension_numbers']) == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
  if not (layout and params['batch_group_count'] == 1 and set(params['lhs_dilation']) == {1}):
    return False
  floats = x.dtype == w.dtype and jnp.issubdtype(x.dtype, jnp.floating) and params['preferred_element_type'] is None
  conv = Conv.of(x.shape, w.shape, params)
  whole = min(map(min, conv.padding)) >= 0 and min(*conv.x, *conv.w, *conv.size) > 0
  return bool(floats and whole and (conv.groups > 1 or conv.depthwise or conv.pointwise))


@functools.lru_cache(maxsize=1024)
def _of_lax(x, w, **params):
  """The parameters of lax's primitive, in its own form; what lax refuses is refused."""
  eqn, = jax.make_jaxpr(functools.partial(lax.conv_general_dilated, **params))(x, w).eqns
  return {name: value for name, value in eqn.params.items() if name != 'out_sharding'}


def _check(x, w, dims, groups):
  cin, each, cout = x.shape[dims.lhs_spec[1]], w.shape[dims.rhs_spec[1]], w.shape[dims.rhs_spec[0]]
  if groups < 1 or cin != each * groups or cout % groups:
    raise EffjaxError(f'convolution: x {x.shape} has {cin} channels and w {w.shape} takes {each} in each of {groups} '
                      f'groups, for {cout} outputs: wanted {each * groups} channels, outputs that groups divide')


def _check_formulation(conv, formulation):
  fitting = [name for name, each in FORMULATIONS.items() if each.fits(conv)]
  if formulation not in (None, *fitting):
    raise EffjaxError(f'convolution: formulation={formulation!r} is unknown or does not fit x {conv.x}, w {conv.w}, '
                      f'strides {conv.strides}: choose from {fitting}, or None for the fastest')


def _varying(*args):
  """Each over all axes of a `shard_map` over which any of them varies."""
  over = lambda a: jax.typeof(a).manual_axis_type.varying
  axes = frozenset().union(*map(over, args))
  missing = lambda a: tuple(sorted(axes - over(a)))
  return [lax.pcast(a, missing(a), to='varying') if missing(a) else a for a in args]
