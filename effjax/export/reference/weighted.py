"""Kernels with weights: exact int32 accumulators, then the rounding of the kernel that runs them."""
import jax
import jax.numpy as jnp
import numpy as np

from effjax.errors import EffjaxError
from effjax.export.network import Node, container, one_scale
from effjax.export.operator_options import VALID, padding
from effjax.export.reference.rounding import fixed_point, fixed_rounding, float_rounding, stored

_EXACT = 2 ** 24  # integers below are exact in float32
_LANES = 8  # channels that depthwise and transposed builtin kernels round together


def _weighted(node, sources, x, kernels):
  """conv, depthwise, dense, transpose_conv."""
  along = lambda value: np.reshape(value, (1,) * (x[0].ndim - 1) + (-1,))
  acc = accumulate(node, x[0] - sources[0].zero_point) + along(node.bias)
  scale, output = np.float32(sources[0].scale), np.float32(node.output.scale)
  if kernels == 'xnnpack' and in_xnnpack(node):
    return float_rounding(node, acc, along(scale * node.scales / output))
  multiplier, exponent = map(along, fixed_point(_unit(node, scale) / np.float64(output)))
  return stored(node, fixed_rounding(acc, multiplier, exponent, along(_away(node))), 'builtin')


def in_xnnpack(node: Node) -> bool:
  """Whether XNNPACK has the kernel; else a builtin one runs.

  Of codes narrower than 8 bits it has only products of an even number of inputs; of transposed convolutions with gaps
  (a stride larger than the kernel) only those with VALID padding.
  """
  if node.op == 'transpose_conv':
    gaps = any(k < s for k, s in zip(node.codes.shape, node.settings['strides']))
    return padding(node) == VALID or not gaps
  return container(node) == 8 or (node.op == 'dense' and node.codes.shape[0] % 2 == 0)


def _unit(node, scale):
  """Builtin kernels: what an accumulator counts in, one product in float32 if a dense layer has one scale."""
  return np.float64(scale * node.scales) if one_scale(node) else np.float64(scale) * node.scales


def _away(node):
  """Channels whose ties a builtin kernel rounds away from zero instead of up: those computed one by one.

  All of a grouped convolution, which has only a reference kernel; in depthwise and transposed ones the rest after
  whole vectors of 8.
  """
  channel = np.arange(node.scales.size)
  if node.op in ('depthwise', 'transpose_conv'):
    return channel >= channel.size // _LANES * _LANES
  return np.full(channel.size, node.op == 'conv' and node.settings['groups'] > 1)


def accumulate(node: Node, x: jax.Array) -> jax.Array:
  """The exact int32 accumulators of a weighted kernel without its bias; `x` holds codes less the zero point."""
  return _linear(node, x, node.codes.astype(np.int32))


def _linear(node, x, codes):
  """In float32 while no partial sum can reach 2^24; larger codes in two parts."""
  if 255 * np.abs(codes).reshape(-1, codes.shape[-1]).sum(0).max() < _EXACT:
    return _float_linear(node, x.astype(jnp.float32), jnp.asarray(codes, jnp.float32)).astype(jnp.int32)
  factor = next((f for f in (16, 4, 2) if np.abs(codes).max() > f // 2), None)
  if factor is None:
    raise EffjaxError(f'simulate: {node.output.name!r} sums over {codes[..., 0].size} inputs, too many to be exact')
  high = np.rint(codes / factor).astype(np.int32)
  return factor * _linear(node, x, high) + _linear(node, x, codes - factor * high)


def _float_linear(node, x, w):
  highest = jax.lax.Precision.HIGHEST
  if node.op == 'dense':
    return jnp.dot(x, w, precision=highest)
  s = node.settings
  if node.op == 'transpose_conv':
    return _transposed(node, x, w)
  return jax.lax.conv_general_dilated(x, w, s['strides'], s['padding'], rhs_dilation=s['dilation'], precision=highest,
                                      dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=s['groups'])


def _transposed(node, x, w):
  """A convolution of the image with zeros between its pixels, cropped."""
  reach = [(k - 1 - before, k - 1 - after) for k, (before, after) in zip(w.shape, node.settings['padding'])]
  return jax.lax.conv_general_dilated(x, w, (1, 1), reach, lhs_dilation=node.settings['strides'],
                                      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
                                      precision=jax.lax.Precision.HIGHEST)


KERNELS = dict.fromkeys(('conv', 'depthwise', 'dense', 'transpose_conv'), _weighted)
