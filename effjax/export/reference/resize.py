"""Images of another height and width: coordinates and weights are constants, computed as the kernels do."""
import jax.numpy as jnp
import numpy as np


def _bilinear(node, sources, x, kernels):
  """Four neighbours with weights of 11 bits and ties up (XNNPACK); of 10 bits, ties away from zero (builtin)."""
  bits, neighbours = (11, _float_neighbours) if kernels == 'xnnpack' else (10, _fixed_neighbours)
  (top, bottom, down), (left, right, across) = (neighbours(*size, node.settings) for size in _sizes(node, sources))
  down, across = down.reshape(1, -1, 1, 1), across.reshape(1, 1, -1, 1)
  mixed = lambda first, second, weight: first * (2 ** bits - weight) + second * weight
  rows = mixed(x[0][:, top], x[0][:, bottom], down)
  total = mixed(rows[:, :, left], rows[:, :, right], across)
  half = 2 ** (2 * bits - 1)
  if kernels == 'xnnpack':
    return (total + half) >> (2 * bits)
  return jnp.sign(total) * ((jnp.abs(total) + half) >> (2 * bits))


def _nearest(node, sources, x, kernels):
  """XNNPACK has none of 8 bits."""
  rows, columns = (_nearest_index(*size, node.settings) for size in _sizes(node, sources))
  return x[0][:, rows][:, :, columns]


def _sizes(node, sources):
  """(before, after) of height and of width."""
  return zip(sources[0].shape[1:3], node.settings['size'], strict=True)


def _float_neighbours(before, after, settings):
  """Indices of both neighbours, weight of the second: float32, the weight rounded to 11 bits."""
  scale = _step(before, after, settings)
  place = np.arange(after, dtype=np.float32) * scale
  if settings['half_pixel']:
    place = np.clip(place + (np.float32(.5) * scale - np.float32(.5)), np.float32(0), np.float32(before - 1))
  first = np.minimum(place.astype(np.int32), before - 1)
  return first, np.minimum(first + 1, before - 1), np.rint((place - first.astype(np.float32)) * 2048).astype(np.int32)


def _fixed_neighbours(before, after, settings):
  """The same in integers with 10 fraction bits."""
  corners = settings['align_corners'] and after > 1
  scale = (1024 * (before - corners) + (after - corners) // 2) // (after - corners)
  place = np.arange(after, dtype=np.int32) * scale
  if settings['half_pixel']:
    place = place + scale // 2 - 512
  first = np.maximum(place, 0) // 1024
  return first, np.minimum(np.maximum(place + 1023, 0) // 1024, before - 1), place - 1024 * first


def _nearest_index(before, after, settings):
  """In float32, halves up; without corners and half pixels in integers with 16 fraction bits."""
  if not (settings['align_corners'] or settings['half_pixel']):
    return np.minimum(np.arange(after) * ((before << 16) // after + 1) >> 16, before - 1)
  place = (np.arange(after, dtype=np.float32) + np.float32(settings['half_pixel'] / 2)) * _step(before, after, settings)
  index = np.floor(place.astype(np.float64) + (.5 if settings['align_corners'] else 0.))
  return np.minimum(index.astype(np.int32), before - 1)


def _step(before, after, settings):
  corners = settings['align_corners'] and after > 1
  return np.float32(before - corners) / np.float32(after - corners)


KERNELS = {'resize_bilinear': _bilinear, 'resize_nearest': _nearest}
