"""Kernels of 16-bit activations (zero point 0), 8-bit weights and 64-bit biases: TensorFlow Lite's builtin ones.

XNNPACK has none of them, so that both sets of kernels are the same.
"""
import jax
import jax.numpy as jnp
import numpy as np

from effjax.export.reference import int16_lookup, int16_resize, moves
from effjax.export.reference.int16_rounding import narrowed, rescaled, rounded, rounded_once, scale_of
from effjax.export.reference.int64 import add, times, wide
from effjax.export.reference.rounding import clipped, fixed_point, fixed_rounding
from effjax.export.reference.weighted import accumulate

LOWEST = -2 ** 15
_LANES = 16  # elements of a sum that are added together


def _stored(node, codes):
  return clipped(node, codes, 'builtin')


def _bytes(q):
  """`q = 256 high + low`, both within 8 bits and their sign."""
  high = (q + 128) >> 8
  return high, q - 256 * high


def _weighted(node, sources, x, kernels):
  """Sums over the high and over the low bytes of the codes are exact in 32 bits. Only dense layers round as doubles."""
  along = lambda value: np.reshape(value, (1,) * (x[0].ndim - 1) + (-1,))
  high, low = (wide(accumulate(node, part)) for part in _bytes(x[0]))
  acc = add(add(times(high, 256), low), wide(along(node.bias.astype(np.int64))))
  ratio = scale_of(sources[0]) * node.scales / scale_of(node.output)
  return _stored(node, (rounded if node.op == 'dense' else narrowed)(acc, along(ratio)))


def _matmul(node, sources, x, kernels):
  """Four products of bytes."""
  flips = (node.settings['adj_x'], node.settings['adj_y'])
  (a1, a0), (b1, b0) = (_bytes(jnp.swapaxes(q, -1, -2) if flip else q) for q, flip in zip(x, flips))
  product = lambda a, b: wide(jnp.matmul(a, b, preferred_element_type=jnp.int32))
  middle = add(product(a1, b0), product(a0, b1))
  acc = add(times(add(times(product(a1, b1), 256), middle), 256), product(a0, b0))
  unit = np.float64(np.float32(sources[0].scale) * np.float32(sources[1].scale))
  return _stored(node, narrowed(acc, unit / scale_of(node.output)))


def _add(node, sources, x, kernels):
  """Both with 15 more bits in units of twice the larger scale, summed, then in the output's.

  Vectors of 16 of two tensors of one shape are rounded once there, all else twice.
  """
  twice = 2 * max(map(scale_of, sources))
  parts = [rescaled(q << 15, scale_of(s) / twice) for q, s in zip(x, sources)]
  if x[0].shape[1:] == x[1].shape[1:]:
    size = int(np.prod(x[0].shape[1:]))
    vectors = jnp.asarray(np.reshape(np.arange(size) < size // _LANES * _LANES, (1, *x[0].shape[1:])))
    parts = [jnp.where(vectors, rounded_once(q, 2 ** 15 * scale_of(s) / twice), part)
             for q, s, part in zip(x, sources, parts)]
  return _stored(node, rescaled(sum(parts), twice / (2 ** 15 * scale_of(node.output))))


def _sub(node, sources, x, kernels):
  """As a sum, but always rounded twice."""
  twice = 2 * max(map(scale_of, sources))
  a, b = (rescaled(q << 15, scale_of(s) / twice) for q, s in zip(x, sources))
  return _stored(node, rescaled(a - b, twice / (2 ** 15 * scale_of(node.output))))


def _mul(node, sources, x, kernels):
  unit = np.float32(sources[0].scale) * np.float32(sources[1].scale)
  return _stored(node, rescaled(x[0] * x[1], unit / np.float32(node.output.scale)))


def _clamp(node, sources, x, kernels):
  return _stored(node, rescaled(x[0], np.float32(sources[0].scale) / np.float32(node.output.scale)))


def _leaky_relu(node, sources, x, kernels):
  scale, output = np.float32(sources[0].scale), np.float32(node.output.scale)
  ratios = scale / output, scale * np.float32(node.settings['alpha']) / output
  same, leak = (rescaled(x[0], ratio) for ratio in ratios)
  return _stored(node, jnp.where(x[0] >= 0, same, leak))


def _abs(node, sources, x, kernels):
  ratio = np.float32(sources[0].scale) / np.float32(node.output.scale)
  return _stored(node, jnp.abs(x[0]) if ratio == 1 else rescaled(jnp.abs(x[0]), ratio))


def _quantize(node, sources, x, kernels):
  """Also from and to 8 bits."""
  moved = rescaled(x[0] - sources[0].zero_point, scale_of(sources[0]) / scale_of(node.output))
  return _stored(node, moved + node.output.zero_point)


def _mean(node, sources, x, kernels):
  """The multiplier is divided by the number of terms, in integers."""
  axes, keep = node.settings['axes'], node.settings['keep']
  multiplier, exponent = map(int, fixed_point(scale_of(sources[0]) / scale_of(node.output)))
  count = int(np.prod([sources[0].shape[i] for i in axes]))
  shift = min(count.bit_length() - 1, 31 + exponent)
  ratio = np.asarray((multiplier << shift) // count), np.asarray(exponent - shift)
  return _stored(node, fixed_rounding(jnp.sum(x[0], axes, keepdims=keep), *ratio, away=True))


def _sum(node, sources, x, kernels):
  """In float32, ties away from zero."""
  total = jnp.sum(x[0], node.settings['axes'], keepdims=node.settings['keep']).astype(jnp.float32)
  scaled = total * jnp.float32(np.float32(sources[0].scale) / np.float32(node.output.scale))
  return _stored(node, jax.lax.round(scaled, jax.lax.RoundingMethod.AWAY_FROM_ZERO).astype(jnp.int32))


def _reduce_max(node, sources, x, kernels):
  return jnp.max(x[0], node.settings['axes'], keepdims=node.settings['keep'])


def _average_pool(node, sources, x, kernels):
  """Ties away from zero; what lies outside the image does not count."""
  total, count = (_window(node, q, 0, jax.lax.add) for q in (x[0], jnp.ones_like(x[0][:1, ..., :1])))
  return _stored(node, jnp.sign(total) * ((jnp.abs(total) + count // 2) // count))


def _max_pool(node, sources, x, kernels):
  return _stored(node, _window(node, x[0], LOWEST, jax.lax.max))


def _window(node, x, start, function):
  window, strides = ((1, *node.settings[name], 1) for name in ('window', 'strides'))
  padding = ((0, 0), *node.settings['padding'], (0, 0))
  return jax.lax.reduce_window(x, np.int32(start), function, window, strides, padding)


def _pad(node, sources, x, kernels):
  return jnp.pad(x[0], node.settings['padding'], constant_values=LOWEST if node.settings.get('lowest') else 0)


def _constant(node, sources, x, kernels):
  return jnp.asarray(node.codes, jnp.int32)


KERNELS16 = {
    **dict.fromkeys(('conv', 'depthwise', 'dense', 'transpose_conv'), _weighted), 'matmul': _matmul,
    'add': _add, 'sub': _sub, 'mul': _mul, 'constant': _constant,
    'clamp': _clamp, 'leaky_relu': _leaky_relu, 'abs': _abs, 'quantize': _quantize,
    'mean': _mean, 'sum': _sum, 'reduce_max': _reduce_max, 'average_pool': _average_pool, 'max_pool': _max_pool,
    **{op: moves.KERNELS[op] for op in ('concat', 'reshape', 'transpose', 'slice')}, 'pad': _pad,
    **int16_lookup.KERNELS16, **int16_resize.KERNELS16}
