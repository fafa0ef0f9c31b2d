"""The ways to compute a convolution and its two gradients, and which of them is fastest on the CPU."""
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from effjax.layers import conv_kernel_gradient, conv_lax, conv_rows, conv_shifts
from effjax.layers import conv_products as products
from effjax.layers.conv_shape import Conv

DENSE = 256 * 256  # entries of a 1x1 kernel without groups, up to which that is faster than the groups by themselves


class Formulation(NamedTuple):
  """fits(conv); forward(x, w, conv) -> y; input_gradient(g, w, conv) -> dx; kernel_gradient(x, g, conv) -> dw."""
  fits: Callable[[Conv], bool]
  forward: Callable
  input_gradient: Callable
  kernel_gradient: Callable


def _grouped(conv):
  return conv.groups > 1 and not conv.depthwise


def _split(one_of_1x1, one):
  def run(first, second, conv):
    return products.split(one_of_1x1 if conv.w[:2] == (1, 1) else one, first, second, conv)
  return run


def _trimmed(one):
  """Of the kernel only what ever reads the image: of 3x3 over a 1x1 image, one entry."""
  def run(first, kernel, conv):
    inner, part = conv.trimmed
    return one(first, kernel[part], inner)
  return run


def _shifts_kernel_gradient(x, g, conv):
  inner, part = conv.trimmed
  outside = [(each.start, size - each.stop) for each, size in zip(part, conv.w[:2], strict=True)]
  return jnp.pad(conv_kernel_gradient.kernel_gradient(x, g, inner), (*outside, (0, 0), (0, 0)))


FORMULATIONS: dict[str, Formulation] = {
    'lax': Formulation(lambda conv: True, conv_lax.forward, conv_lax.input_gradient,
                       conv_lax.kernel_gradient),
    'shifts': Formulation(lambda conv: conv.depthwise, _trimmed(conv_shifts.forward),
                          _trimmed(conv_shifts.input_gradient), _shifts_kernel_gradient),
    'matmul': Formulation(lambda conv: conv.pointwise, products.matmul_forward, products.matmul_input_gradient,
                          products.matmul_kernel_gradient),
    'split': Formulation(_grouped, _split(products.matmul_forward, conv_lax.forward),
                         _split(products.matmul_input_gradient, conv_lax.input_gradient),
                         _split(products.matmul_kernel_gradient, conv_lax.kernel_gradient)),
    'dense': Formulation(lambda conv: _grouped(conv) and conv.w[:2] == (1, 1), products.dense_forward,
                         products.dense_input_gradient, products.dense_kernel_gradient),
    'rows': Formulation(lambda conv: _grouped(conv) and conv.strides == (1, 1) and _inside(conv), conv_rows.forward,
                        conv_rows.input_gradient, conv_rows.kernel_gradient)}


def _inside(conv):
  return all(max(p) < span for p, span in zip(conv.padding, conv.spans, strict=True))


def fastest(conv: Conv) -> str:
  """The formulation that was measured to be fastest on a CPU (projects/benchmarks/convs.py).

  >>> fastest(Conv((1, 8, 8, 4), (3, 3, 1, 4), (1, 1), (1, 1), ((1, 1), (1, 1)), 4))
  'shifts'
  """
  if conv.depthwise:
    return 'shifts'
  if conv.pointwise:
    return 'matmul'
  if FORMULATIONS['dense'].fits(conv) and conv.x[3] * conv.w[3] <= DENSE:
    return 'dense'
  return 'rows' if FORMULATIONS['rows'].fits(conv) else 'split'
