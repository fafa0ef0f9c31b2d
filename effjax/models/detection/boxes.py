"""Boxes (y0, x0, y1, x1), of pixels: overlap, anchors, and offsets from these."""
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax.errors import EffjaxError

GROWTH = 4.  # log of how many times an anchor can grow or shrink, so that exp stays finite


def iou(a: Float[Array, 'n 4'], b: Float[Array, 'm 4']) -> Float[Array, 'n m']:
  """Area of the intersection by that of the union, of all pairs; 0 where a box has no area.

  >>> iou(jnp.array([[0., 0., 2., 2.]]), jnp.array([[0., 1., 2., 3.], [5., 5., 6., 6.]]))
  Array([[0.33333334, 0.        ]], dtype=float32)
  """
  low = jnp.maximum(a[:, None, :2], b[None, :, :2])
  high = jnp.minimum(a[:, None, 2:], b[None, :, 2:])
  shared = jnp.prod(jnp.maximum(high - low, 0), -1)
  union = area(a)[:, None] + area(b)[None] - shared
  return shared / jnp.where(union > 0, union, 1)


def area(boxes: Float[Array, '*n 4']) -> Float[Array, '*n']:
  """Of a box whose end lies before its start: 0.

  >>> area(jnp.array([[0., 0., 2., 3.], [1., 1., 0., 5.]]))
  Array([6., 0.], dtype=float32)
  """
  return jnp.prod(jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0), -1)


def anchors(shape: tuple[int, int], stride: int | float, scales: Sequence[int | float],
            ratios: Sequence[int | float]) -> Float[Array, 'n 4']:
  """Boxes around the centre of every cell of a map: `n = h w scales ratios`, the last varying fastest.

  Args:
    shape: height and width of the map.
    stride: of the map, in pixels.
    scales: square roots of areas, in pixels. ratios: height by width.

  Raises:
    EffjaxError: no scales or no ratios.

  >>> anchors((1, 2), 16, (32,), (1., 4.))
  Array([[ -8.,  -8.,  24.,  24.],
         [-24.,   0.,  40.,  16.],
         [ -8.,   8.,  24.,  40.],
         [-24.,  16.,  40.,  32.]], dtype=float32)
  """
  if not (len(scales) and len(ratios)):
    raise EffjaxError(f'anchors: wanted scales and ratios, got {tuple(scales)} and {tuple(ratios)}: give one of each')
  y, x = ((np.arange(length) + .5) * stride for length in shape)
  root = np.sqrt(np.asarray(ratios, np.float64))
  sizes = np.asarray(scales, np.float64)[:, None, None] * np.stack([root, 1 / root], -1)[None]
  centres = np.stack(np.meshgrid(y, x, indexing='ij'), -1).reshape(-1, 1, 2)
  half = sizes.reshape(1, -1, 2) / 2
  return jnp.asarray(np.concatenate([centres - half, centres + half], -1).reshape(-1, 4), jnp.float32)


def encode(boxes: Float[Array, '*n 4'], anchors: Float[Array, '*n 4']) -> Float[Array, '*n 4']:
  """`((centre - anchor's) / anchor's size, log(size / anchor's))`: what a network predicts. Sizes below 1e-3 are 1e-3.

  >>> encode(jnp.array([[0., 0., 4., 4.]]), jnp.array([[0., 2., 4., 6.]]))
  Array([[ 0. , -0.5,  0. ,  0. ]], dtype=float32)
  """
  (centre, size), (middle, unit) = _centre_size(boxes), _centre_size(anchors)
  return jnp.concatenate([(centre - middle) / unit, jnp.log(size / unit)], -1)


def decode(deltas: Float[Array, '*n 4'], anchors: Float[Array, '*n 4']) -> Float[Array, '*n 4']:
  """The inverse of `encode`; the logarithms are clipped to -4 ... 4.

  >>> decode(jnp.array([[0., -.5, 0., 0.]]), jnp.array([[0., 2., 4., 6.]]))
  Array([[0., 0., 4., 4.]], dtype=float32)
  """
  middle, unit = _centre_size(anchors)
  centre = middle + deltas[..., :2] * unit
  half = unit * jnp.exp(jnp.clip(deltas[..., 2:], -GROWTH, GROWTH)) / 2
  return jnp.concatenate([centre - half, centre + half], -1)


def clip(boxes: Float[Array, '*n 4'], shape: tuple[int, int]) -> Float[Array, '*n 4']:
  """What of the boxes lies in an image of this height and width.

  >>> clip(jnp.array([-2., 3., 9., 20.]), (8, 10))
  Array([ 0.,  3.,  8., 10.], dtype=float32)
  """
  limits = jnp.asarray([*shape, *shape], boxes.dtype)
  return jnp.minimum(jnp.maximum(boxes, 0), jnp.broadcast_to(limits, boxes.shape))


def _centre_size(boxes):
  size = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 1e-3)
  return boxes[..., :2] + (boxes[..., 2:] - boxes[..., :2]) / 2, size
