"""Convolutions as primitives: for the graph `conv_general_dilated`, with a formulation for each backend and shape.

A convolution is the trilinear form `<g, conv(x, w)>`. The output of x and w, the gradient of x from g and w, and the
gradient of w from x and g are primitives, each linear in both of its arguments and each other's transposes; derivatives
of any order and mode are made of these three. They have the parameters of lax's convolution and `formulation`: a name,
or None, which is lax except on the CPU, where it is the fastest. The gradients also have `shape`, that of their result.
"""
import functools
from collections.abc import Callable

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from effjax.layers.conv_formulations import FORMULATIONS, fastest
from effjax.layers.conv_shape import Conv


def _primitive(name: str, part: str, conv_of: Callable, shape_of: Callable, folds: int | None) -> Primitive:
  """One of the three: `part` is its name within a formulation, `folds` the argument whose batch a mapped axis joins."""
  primitive = Primitive(name)

  def computed(cpu, *args, **params):
    conv = conv_of(*(a.shape for a in args), params)
    chosen = params['formulation'] or (fastest(conv) if cpu else 'lax')
    return getattr(FORMULATIONS[chosen], part)(*args, conv)

  primitive.def_abstract_eval(lambda *args, **params: args[0].update(
      shape=shape_of(conv_of(*(a.shape for a in args), params)), weak_type=False))
  primitive.def_impl(functools.partial(_eager, primitive))
  by_lax = lambda *args, **params: computed(False, *args, **params | {'formulation': 'lax'})
  batching.primitive_batchers[primitive] = functools.partial(_batched, primitive, by_lax, folds)
  for cpu, platform in ((False, None), (True, 'cpu')):
    lowered = mlir.lower_fun(functools.partial(computed, cpu), multiple_results=False)
    mlir.register_lowering(primitive, lowered, platform)
  return primitive


def _eager(primitive, *args, **params):
  with jax.disable_jit(False):
    return _jitted(primitive, **params)(*args)


@functools.cache
def _jitted(primitive, **params):
  return jax.jit(functools.partial(primitive.bind, **params))


def _batched(primitive, by_lax, folds, args, axes, **params):
  """vmap: of images alone, the mapped axis becomes a part of their batch; of kernels too, lax's own."""
  if [axis is not None for axis in axes] != [i == folds for i in range(2)]:
    return jax.vmap(functools.partial(by_lax, **params), axes)(*args), 0
  images = batching.bdim_at_front(args[folds], axes[folds], args[folds].shape[axes[folds]])
  args = [images.reshape(-1, *images.shape[2:]) if i == folds else a for i, a in enumerate(args)]
  if 'shape' in params:
    params['shape'] = (args[folds].shape[0], *params['shape'][1:])
  out = primitive.bind(*args, **params)
  return out.reshape(images.shape[0], -1, *out.shape[1:]), 0


forward = _primitive('conv_general_dilated', 'forward', Conv.of,
                     lambda conv: (conv.x[0], *conv.size, conv.w[3]), 0)
input_gradient = _primitive('conv_input_gradient', 'input_gradient',
                            lambda g, w, params: Conv.of(params['shape'], w, params), lambda conv: conv.x, 0)
kernel_gradient = _primitive('conv_kernel_gradient', 'kernel_gradient',
                             lambda x, g, params: Conv.of(x, params['shape'], params), lambda conv: conv.w, None)


def _forward(x, w, shape=None, **params):
  return forward.bind(x, w, **params)


def _input(g, w, like, shape=None, **params):
  return input_gradient.bind(g, w, **params, shape=like.aval.shape)


def _kernel(x, g, like, shape=None, **params):
  return kernel_gradient.bind(x, g, **params, shape=like.aval.shape)


# The cotangent, then both arguments, one of which is only known by its shape; what is returned is its cotangent.
ad.defbilinear(forward, lambda g, x, w, **p: _input(g, w, x, **p), lambda g, x, w, **p: _kernel(x, g, w, **p))
ad.defbilinear(input_gradient, lambda t, g, w, **p: _forward(t, w, **p), lambda t, g, w, **p: _kernel(t, g, w, **p))
ad.defbilinear(kernel_gradient, lambda t, x, g, **p: _input(g, t, x, **p), lambda t, x, g, **p: _forward(x, t, **p))
