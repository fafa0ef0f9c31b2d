"""Pools and their derivatives as shifted slices, which XLA's CPU backend fuses into one loop each.

A tap (a, b) of the window reads `x[s i + a, s j + b]` of the padded x, a strided slice. The transposes put what each
tap contributes back by phases: the entries `s m + r` of x, for one r, meet the taps a = r, r + s, ... at the windows
m, m - 1, ..., which are slices without strides. 16-bit inputs are computed in float32. Windows of at most 127 entries.
"""
import functools
from collections.abc import Callable, Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from effjax.layers.wide import wide
from effjax.layers.windows import Pair, Windows


def largest(x: Float[Array, 'n h w c'], windows: Windows) -> Float[Array, 'n h2 w2 c']:
  """The largest entry of each window; the padding is -inf.

  >>> largest(jnp.arange(4.).reshape(1, 2, 2, 1), Windows((2, 2), (1, 1), ((0, 0), (0, 0)))).item()
  3.0
  """
  return functools.reduce(lax.max, _taps(x, windows, -np.inf)).astype(x.dtype)


def largest_tangent(t: Float[Array, 'n h w c'], x: Float[Array, 'n h w c'],
                    windows: Windows) -> Float[Array, 'n h2 w2 c']:
  """The entries of t where x has the first maximum of each window (in the order of its rows).

  >>> x, t = jnp.array([1., 2., 2.]), jnp.array([3., 4., 5.])
  >>> largest_tangent(t.reshape(1, 1, 3, 1), x.reshape(1, 1, 3, 1), Windows((1, 3), (1, 1), ((0, 0), (0, 0)))).item()
  4.0
  """
  return _first(zip(_taps(x, windows, -np.inf), _taps(t, windows, 0.), strict=True)).astype(t.dtype)


def largest_gradient(g: Float[Array, 'n h2 w2 c'], x: Float[Array, 'n h w c'],
                     windows: Windows) -> Float[Array, 'n h w c']:
  """The transpose of `largest_tangent`: each entry of g where x has the first maximum of its window.

  >>> x = jnp.array([1., 2., 2.]).reshape(1, 1, 3, 1)
  >>> largest_gradient(jnp.full((1, 1, 1, 1), 7.), x, Windows((1, 3), (1, 1), ((0, 0), (0, 0)))).ravel()
  Array([0., 7., 0.], dtype=float32)
  """
  first = _first((tap, lax.full_like(tap, i, jnp.int8)) for i, tap in enumerate(_taps(x, windows, -np.inf)))
  part = lambda tap, g, first: jnp.where(first == tap, g, jnp.zeros((), g.dtype))
  return _put_back(part, (wide(g), first), windows, x.shape[1:3]).astype(g.dtype)


def total(x: Float[Array, 'n h w c'], windows: Windows) -> Float[Array, 'n h2 w2 c']:
  """The sum of each window.

  >>> total(jnp.arange(4.).reshape(1, 2, 2, 1), Windows((2, 2), (1, 1), ((0, 0), (0, 0)))).item()
  6.0
  """
  return functools.reduce(lax.add, _taps(x, windows, 0.)).astype(x.dtype)


def total_transpose(g: Float[Array, 'n h2 w2 c'], windows: Windows, size: Pair) -> Float[Array, 'n h w c']:
  """The transpose of `total` on images of height and width `size`: for each entry the sum over its windows.

  >>> total_transpose(jnp.ones((1, 1, 2, 1)), Windows((1, 2), (1, 1), ((0, 0), (0, 0))), (1, 3)).ravel()
  Array([1., 2., 1.], dtype=float32)
  """
  if windows.window != windows.strides:
    return _put_back(lambda tap, g: g, (wide(g),), windows, size).astype(g.dtype)
  n, h, w, channels = g.shape
  sh, sw = windows.strides
  whole = lax.broadcast_in_dim(g, (n, h, sh, w, sw, channels), (0, 1, 3, 5)).reshape(n, h * sh, w * sw, channels)
  return _cropped(whole, windows, size)


def _first(pairs):
  """Of (x, value) at each tap, the value at the first maximum of x. A NaN gives way to what follows it, as in lax."""
  def later(best, pair):
    keep = best[0] >= pair[0]
    return tuple(lax.select(keep, old, new) for old, new in zip(best, pair, strict=True))
  return functools.reduce(later, pairs)[1]


def _pad(x, value, padding):
  """Kept from being computed again for every tap."""
  padding = ((0, 0, 0), *((*p, 0) for p in padding), (0, 0, 0))
  return lax.optimization_barrier(lax.pad(x, jnp.asarray(value, x.dtype), padding))


def _taps(x: Array, windows: Windows, value: float) -> Iterator[Array]:
  (kh, kw), (sh, sw), (h, w) = windows.window, windows.strides, windows.counts(x.shape[1:3])
  x = _pad(wide(x), value, windows.padding)
  for a in range(kh):
    for b in range(kw):
      ends = (x.shape[0], a + sh * (h - 1) + 1, b + sw * (w - 1) + 1, x.shape[3])
      yield lax.slice(x, (0, a, b, 0), ends, (1, sh, sw, 1))


def _put_back(part: Callable, arrays: Sequence[Array], windows: Windows, size: Pair) -> Array:
  """The sum over taps of `part(tap, *arrays)`, an array over windows, at the entries of x that the tap reads."""
  (kh, kw), (sh, sw), padding = windows
  cells = [-(-(n + sum(p)) // s) for n, p, s in zip(size, padding, windows.strides, strict=True)]
  before = [(k - 1) // s for k, s in zip(windows.window, windows.strides, strict=True)]
  spaces = [(b, max(m - n, 0)) for b, m, n in zip(before, cells, arrays[0].shape[1:3], strict=True)]
  arrays = [_pad(x, 0, spaces) for x in arrays]

  def at(x, a, b):
    start = (0, before[0] - a // sh, before[1] - b // sw, 0)
    return lax.slice(x, start, (x.shape[0], start[1] + cells[0], start[2] + cells[1], x.shape[3]))

  def phase(r, c):
    parts = [part(a * kw + b, *(at(x, a, b) for x in arrays)) for a in range(r, kh, sh) for b in range(c, kw, sw)]
    return functools.reduce(lax.add, parts) if parts else jnp.zeros_like(at(arrays[0], 0, 0))

  rows = [jnp.stack([phase(r, c) for c in range(sw)], 3) for r in range(sh)]
  n, _, _, channels = arrays[0].shape
  whole = jnp.stack(rows, 2).reshape(n, cells[0] * sh, cells[1] * sw, channels)
  return _cropped(whole, windows, size)


def _cropped(whole, windows, size):
  """What lies on an image of this size of what lies on its windows; 0 where there is no window."""
  spatial = ((-low, low + n - m, 0) for n, m, (low, _) in zip(size, whole.shape[1:3], windows.padding, strict=True))
  return lax.pad(whole, jnp.zeros((), whole.dtype), ((0, 0, 0), *spatial, (0, 0, 0)))
