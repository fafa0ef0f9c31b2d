"""Means, sums, maxima and averages over axes and windows."""
import jax
import jax.numpy as jnp
import numpy as np

from effjax.export.reference.rounding import clipped, fixed_point, fixed_rounding, ratio, stored

_LANES = 16  # channels that the builtin mean over an image rounds together


def _mean(node, sources, x, kernels):
  """XNNPACK takes all; of the builtin kernels, images whose axes are kept have one of their own."""
  count = _count(node, sources)
  if kernels == 'xnnpack':
    return _float_sum(node, sources, x, ratio(sources[0], node.output) * (np.float32(1) / np.float32(count)))
  image = node.settings['keep'] and len(sources[0].shape) == 4 and set(node.settings['axes']) == {1, 2}
  return (_image_mean if image else _any_mean)(node, sources, x, count)


def _sum(node, sources, x, kernels):
  """Both kernels multiply in float32; the builtin one adds the zero point later and rounds ties away from zero."""
  multiplier = ratio(sources[0], node.output)
  if kernels == 'xnnpack':
    return _float_sum(node, sources, x, multiplier)
  zero = np.float32(-sources[0].zero_point) * multiplier * np.float32(_count(node, sources))
  total = _scaled(_total(node, x[0]), multiplier) + zero
  whole = jnp.trunc(total)
  away = whole + jnp.where(jnp.abs(total - whole) >= .5, jnp.sign(total), jnp.zeros_like(total))
  return stored(node, away, 'builtin')


def _reduce_max(node, sources, x, kernels):
  return jnp.max(x[0], node.settings['axes'], keepdims=node.settings['keep'])


def _float_sum(node, sources, x, multiplier):
  """XNNPACK: both zero points in one number, added in float32; ties to even."""
  zero = np.float32(node.output.zero_point) - np.float32(_count(node, sources) * sources[0].zero_point) * multiplier
  return clipped(node, jnp.round(_scaled(_total(node, x[0]), multiplier) + zero).astype(jnp.int32))


def _scaled(total, multiplier):
  """Bounded: else the compiler may join the product and a sum that follows into one rounding."""
  return jnp.clip(total.astype(jnp.float32) * multiplier, -1e9, 1e9)


def _image_mean(node, sources, x, count):
  """Builtin, over height and width: the zero points are rounded apart; ties up in whole vectors of channels."""
  source, output = np.float32(sources[0].scale), np.float32(node.output.scale)
  zero = np.float32(sources[0].zero_point) * source / output
  zero = node.output.zero_point - int(zero + np.copysign(np.float32(.5), zero))
  away = np.arange(node.output.shape[-1]) >= node.output.shape[-1] // _LANES * _LANES
  multiplier = fixed_point(source / (np.float32(count) * output))
  return clipped(node, fixed_rounding(_total(node, x[0]), *multiplier, away=away.reshape(1, 1, 1, -1)) + zero)


def _any_mean(node, sources, x, count):
  """Builtin: the multiplier is divided by the count in integers; ties away from zero."""
  multiplier, exponent = fixed_point(ratio(sources[0], node.output, np.float64))
  shift = min(count.bit_length() - 1, 31 + int(exponent))
  multiplier = np.asarray((int(multiplier) << shift) // count)
  centred = _total(node, x[0]) - count * sources[0].zero_point
  return stored(node, fixed_rounding(centred, multiplier, exponent - np.int32(shift), away=True), 'builtin')


def _total(node, x):
  return jnp.sum(x, node.settings['axes'], keepdims=node.settings['keep'])


def _count(node, sources):
  return int(np.prod([sources[0].shape[i] for i in node.settings['axes']]))


def _window(node, x, start, function):
  window, strides = ((1, *node.settings[name], 1) for name in ('window', 'strides'))
  padding = ((0, 0), *node.settings['padding'], (0, 0))
  return jax.lax.reduce_window(x, np.int32(start), function, window, strides, padding)


def _average_pool(node, sources, x, kernels):
  """Averages of the stored integers, ties away from zero; what lies outside the image does not count.

  XNNPACK has none of 8 bits.
  """
  total, count = (_window(node, q, 0, jax.lax.add) for q in (x[0], jnp.ones_like(x[0][:1, ..., :1])))
  return clipped(node, jnp.sign(total) * ((2 * jnp.abs(total) + count) // (2 * count)), 'builtin')


def _max_pool(node, sources, x, kernels):
  """XNNPACK has all but windows of one pixel with strides."""
  s = node.settings
  only_strides = tuple(s['window']) == (1, 1) and tuple(s['strides']) != (1, 1)
  return clipped(node, _window(node, x[0], -128, jax.lax.max), 'builtin' if only_strides else kernels)


KERNELS = {'mean': _mean, 'sum': _sum, 'reduce_max': _reduce_max, 'average_pool': _average_pool, 'max_pool': _max_pool}
