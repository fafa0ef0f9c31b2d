"""The gradient of a depthwise convolution's kernel, in loops that XLA's CPU backend vectorises."""
import functools
import itertools
import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from effjax.layers.conv_shape import Conv
from effjax.layers.conv_shifts import repeated, sliced
from effjax.layers.wide import wide

PLACES = 32  # of an output that is small
BYTES = 1.15 * 2**20  # of a block of x and g together: it stays in the cache while every tap reads it
CHANNELS = 256  # of a block; fewer make the runs in memory short
TERMS = 8  # of a sum within one loop


def kernel_gradient(x: Float[Array, 'n h w cin'], g: Float[Array, 'n h2 w2 c'],
                    conv: Conv) -> Float[Array, 'kh kw 1 c']:
  """`dw[a, b, c] = sum_nij x[n, s i + d a, s j + d b, c] g[n, i, j, c]`.

  A reduction within a fused loop is neither vectorised nor run by several threads. So each tap first sums its products
  over entries that are far apart, which is a plain loop, into what is reduced last: of small outputs over all places
  and some images, else over rows of a block.

  >>> conv = Conv((1, 1, 3, 1), (1, 2, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1)
  >>> kernel_gradient(jnp.array([1., 2., 3.]).reshape(conv.x), jnp.ones((1, 1, 2, 1)), conv).ravel()
  Array([3., 5.], dtype=float32)
  """
  dtype, x, g = g.dtype, repeated(wide(x), conv), wide(g)
  sums = _of_small(x, g, conv) if math.prod(conv.size) <= PLACES else _by_blocks(x, g, conv)
  return sums.reshape(conv.w).astype(dtype)


# --- small outputs -----------------------------------------------------------------------------------------------

def _of_small(x, g, conv):
  """The sums [taps, channels], from those [taps, images, channels] of all places and some images."""
  images = _divisor(conv.x[0], PLACES // math.prod(conv.size))
  x, g = (jnp.split(each, images) for each in (x, g))

  def tap(start):
    terms = [p[:, r, q] * t[:, i, j] for (i, r), (j, q) in itertools.product(*_read(conv, start))
             for p, t in zip(x, g, strict=True)]
    return functools.reduce(jnp.add, terms) if terms else jnp.zeros_like(g[0][:, 0, 0])

  return lax.optimization_barrier(jnp.stack([tap(start) for _, start in conv.taps])).sum(1)


def _read(conv, start):
  """For each axis the outputs, and what of x each reads by the tap from `start`; without padding."""
  for size, n, step, first, (low, _) in zip(conv.size, conv.x[1:3], conv.strides, start, conv.padding, strict=True):
    yield [(i, i * step + first - low) for i in range(size) if 0 <= i * step + first - low < n]


# --- blocks ------------------------------------------------------------------------------------------------------

def _by_blocks(x, g, conv):
  """The sums [taps, channels] by blocks of images, rows and channels."""
  block = _block(conv, g.dtype.itemsize)
  return jnp.concatenate([_channels(x, g, conv, block, first) for first in range(0, conv.w[3], block.channels)], -1)


class _Block(NamedTuple):
  """How much of g is taken at once, and how many of its rows are summed in one loop."""
  images: int
  rows: int
  channels: int
  terms: int


def _divisor(n, most):
  """The largest divisor of n that is not above `most`."""
  return max(i for i in range(1, n + 1) if n % i == 0 and (i <= most or i == 1))


def _block(conv, itemsize):
  (h, w), c = conv.size, conv.w[3]
  row = (conv.strides[0] * (conv.x[2] + sum(conv.padding[1])) + w) * itemsize
  channels = c if min(h, 2 * TERMS) * row * c <= BYTES else _divisor(c, CHANNELS)
  channels = channels if channels > CHANNELS // 4 else c
  rows = _divisor(h, max(BYTES // (row * channels), min(h, TERMS)))
  images = _divisor(conv.x[0], BYTES / 2 // (row * channels * h)) if rows == h else 1
  return _Block(images, rows, channels, _divisor(rows, TERMS))


def _channels(x, g, conv, block, first):
  """The sums [taps, channels] of one block of channels."""
  w, down = conv.size[1], conv.size[0] // block.rows
  apart = block.rows // block.terms
  zero = jnp.zeros_like(g, shape=(block.images, apart, w, block.channels))

  def step(i, sums):
    image, row = i // down * block.images, i % down * block.rows
    part = lax.dynamic_slice(g, (image, row, 0, first), (block.images, block.rows, w, block.channels))
    # What ends with a pad is not computed again within the loop of each tap.
    part = lax.pad(part, jnp.zeros((), g.dtype), ((0, 0, 0), (0, 1, 0), (0, 0, 0), (0, 0, 0)))
    read, part = lax.optimization_barrier((_rows(x, conv, block, image, row, first), part))
    return tuple(total + tap(read, part, start) for total, (_, start) in zip(sums, conv.taps, strict=True))

  def tap(read, part, start):
    rows = range(0, block.rows, apart)
    at = lambda row: (start[0] + row * conv.strides[0], start[1])
    return functools.reduce(jnp.add, [sliced(read, at(row), conv.strides, (apart, w)) * part[:, row:row + apart]
                                      for row in rows])

  sums = lax.fori_loop(0, conv.x[0] // block.images * down, step, (zero,) * math.prod(conv.w[:2]))
  return lax.optimization_barrier(jnp.stack(sums)).sum((1, 2, 3))


def _rows(x, conv, block, image, row, first):
  """What a block reads of the padded x: slices that end at its border, with the rest of the padding put back."""
  (stride, _), ((low, _), (left, _)), (h, w) = conv.strides, conv.padding, conv.size
  rows = (block.rows - 1) * stride + conv.spans[0]
  taken = min(rows, x.shape[1])
  start = row * stride - low
  inside = jnp.clip(start, 0, x.shape[1] - taken)
  x = lax.dynamic_slice(x, (image, inside, 0, first), (block.images, taken, x.shape[2], block.channels))
  below = max(0, (h - 1) * stride + conv.spans[0] - low - conv.x[1])
  x = jnp.pad(x, ((0, 0), (low, below), (0, 0), (0, 0)))
  x = lax.dynamic_slice(x, (0, low + start - inside, 0, 0), (block.images, rows, *x.shape[2:]))
  right = max(0, (w - 1) * conv.strides[1] + conv.spans[1] - left - conv.x[2])
  return jnp.pad(x, ((0, 0), (0, 1), (left, right), (0, 0)))
