"""Depthwise convolutions as sums of shifted slices, which XLA's CPU backend fuses into one loop over the output.

A tap (a, b) of the kernel reads `x[s i + d a, s j + d b]` of the padded x. float32 arithmetic inside for 16-bit arrays.
"""
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from effjax.layers.conv_shape import Conv, Pair
from effjax.layers.wide import wide

BYTES = 1.15 * 2**20  # of a block of x and g together: it stays in the cache while every tap reads it
CHANNELS = 256  # of a block; fewer make the runs in memory short
TERMS = 8  # of a sum within one loop


def forward(x: Float[Array, 'n h w cin'], w: Float[Array, 'kh kw 1 c'], conv: Conv) -> Float[Array, 'n h2 w2 c']:
  """`y[i, j, c] = sum_ab x[s i + d a, s j + d b, c] w[a, b, c]`.

  >>> conv = Conv((1, 2, 2, 1), (2, 2, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1)
  >>> forward(jnp.arange(4.).reshape(conv.x), jnp.ones(conv.w), conv).item()
  6.0
  """
  padded, w = _pad(_repeated(wide(x), conv), conv.padding), wide(w)
  taps = (_slice(padded, start, conv.strides, conv.size) * w[a, b, None, None] for (a, b), start in _taps(conv))
  return functools.reduce(jnp.add, taps).astype(x.dtype)


def input_gradient(g: Float[Array, 'n h2 w2 c'], w: Float[Array, 'kh kw 1 c'],
                   conv: Conv) -> Float[Array, 'n h w cin']:
  """`dx`, by phases: the entries `s m + r` of the padded x, for one r, meet the taps of `d a = r (mod s)`.

  >>> conv = Conv((1, 1, 3, 1), (1, 2, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1)
  >>> input_gradient(jnp.ones((1, 1, 2, 1)), jnp.array([[1., 2.]]).reshape(conv.w), conv).ravel()
  Array([1., 3., 2.], dtype=float32)
  """
  (sh, sw), w, n, c = conv.strides, wide(w), conv.x[0], conv.w[3]
  cells = _pair(-(-(size + low) // s) for size, s, (low, _) in zip(conv.x[1:3], conv.strides, conv.padding))
  before = _pair((span - 1) // s for span, s in zip(conv.spans, conv.strides))
  padded = _pad(wide(g), [(b, max(m - out, 0)) for b, m, out in zip(before, cells, conv.size)])

  def phase(*rest):
    at = lambda start: _pair(b - i // s for b, i, s in zip(before, start, conv.strides))
    taps = [_slice(padded, at(start), (1, 1), cells) * w[a, b, None, None] for (a, b), start in _taps(conv)
            if rest == _pair(i % s for i, s in zip(start, conv.strides))]
    return functools.reduce(jnp.add, taps) if taps else jnp.zeros((n, *cells, c), padded.dtype)

  rows = [jnp.stack([phase(r, q) for q in range(sw)], 3) for r in range(sh)]
  whole = jnp.stack(rows, 2).reshape(n, cells[0] * sh, cells[1] * sw, c)
  (top, _), (left, _) = conv.padding
  dx = whole[:, top:top + conv.x[1], left:left + conv.x[2]]
  return (dx if c == conv.x[3] else dx.reshape(*conv.x, -1).sum(-1)).astype(g.dtype)


def kernel_gradient(x: Float[Array, 'n h w cin'], g: Float[Array, 'n h2 w2 c'],
                    conv: Conv) -> Float[Array, 'kh kw 1 c']:
  """`dw[a, b, c] = sum_nij x[n, s i + d a, s j + d b, c] g[n, i, j, c]`, block by block.

  A reduction within a fused loop is neither vectorised nor run by several threads. So each tap first sums its products
  over rows of a block that are far apart, which is a plain loop, into what all blocks share; that is reduced last.

  >>> conv = Conv((1, 1, 3, 1), (1, 2, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1)
  >>> kernel_gradient(jnp.array([1., 2., 3.]).reshape(conv.x), jnp.ones((1, 1, 2, 1)), conv).ravel()
  Array([3., 5.], dtype=float32)
  """
  dtype, x, g = g.dtype, _repeated(wide(x), conv), wide(g)
  block = _block(conv, g.dtype.itemsize)
  parts = [_channels(x, g, conv, block, first) for first in range(0, conv.w[3], block.channels)]
  return jnp.concatenate(parts, -1).reshape(conv.w).astype(dtype)


# --- blocks ------------------------------------------------------------------------------------------------------

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
    return tuple(total + tap(read, part, start) for total, (_, start) in zip(sums, _taps(conv), strict=True))

  def tap(read, part, start):
    rows = range(0, block.rows, apart)
    at = lambda row: (start[0] + row * conv.strides[0], start[1])
    return functools.reduce(jnp.add, [_slice(read, at(row), conv.strides, (apart, w)) * part[:, row:row + apart]
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


# --- taps --------------------------------------------------------------------------------------------------------

def _taps(conv: Conv) -> Iterator[tuple[Pair, Pair]]:
  """The entries of the kernel, and where each first reads."""
  for a in range(conv.w[0]):
    for b in range(conv.w[1]):
      yield (a, b), (a * conv.dilation[0], b * conv.dilation[1])


def _slice(x, start, strides, size):
  """`size` rows and columns of x, from `start`, in steps."""
  ends = (i + s * (n - 1) + 1 for i, s, n in zip(start, strides, size, strict=True))
  return lax.slice(x, (0, *start, 0), (x.shape[0], *ends, x.shape[3]), (1, *strides, 1))


def _pad(x, spatial):
  """Kept from being computed again for every tap."""
  return lax.optimization_barrier(jnp.pad(x, ((0, 0), *spatial, (0, 0))))


def _repeated(x, conv):
  """Each channel as often as it has outputs."""
  return x if conv.w[3] == conv.x[3] else jnp.repeat(x, conv.w[3] // conv.x[3], -1)


def _pair(values) -> Pair:
  first, second = values
  return first, second
