"""Depthwise convolutions as sums of shifted slices, which XLA's CPU backend fuses into one loop over the output.

A tap (a, b) of the kernel reads `x[s i + d a, s j + d b]` of the padded x. float32 arithmetic inside for 16-bit arrays.
"""
import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from effjax.layers.conv_shape import Conv, Pair
from effjax.layers.wide import wide


def forward(x: Float[Array, 'n h w cin'], w: Float[Array, 'kh kw 1 c'], conv: Conv) -> Float[Array, 'n h2 w2 c']:
  """`y[i, j, c] = sum_ab x[s i + d a, s j + d b, c] w[a, b, c]`.

  >>> conv = Conv((1, 2, 2, 1), (2, 2, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1)
  >>> forward(jnp.arange(4.).reshape(conv.x), jnp.ones(conv.w), conv).item()
  6.0
  """
  padded, w = _pad(repeated(wide(x), conv), conv.padding), wide(w)
  terms = (sliced(padded, start, conv.strides, conv.size) * w[a, b, None, None] for (a, b), start in conv.taps)
  return functools.reduce(jnp.add, terms).astype(x.dtype)


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
    terms = [sliced(padded, at(start), (1, 1), cells) * w[a, b, None, None] for (a, b), start in conv.taps
             if rest == _pair(i % s for i, s in zip(start, conv.strides))]
    return functools.reduce(jnp.add, terms) if terms else jnp.zeros((n, *cells, c), padded.dtype)

  rows = [jnp.stack([phase(r, q) for q in range(sw)], 3) for r in range(sh)]
  whole = jnp.stack(rows, 2).reshape(n, cells[0] * sh, cells[1] * sw, c)
  (top, _), (left, _) = conv.padding
  dx = whole[:, top:top + conv.x[1], left:left + conv.x[2]]
  return (dx if c == conv.x[3] else dx.reshape(*conv.x, -1).sum(-1)).astype(g.dtype)


def sliced(x: Float[Array, 'n h w c'], start: Pair, strides: Pair, size: Pair) -> Float[Array, 'n h2 w2 c']:
  """`size` rows and columns of x, from `start`, in steps.

  >>> sliced(jnp.arange(9.).reshape(1, 3, 3, 1), (0, 1), (2, 1), (2, 1)).ravel()
  Array([1., 7.], dtype=float32)
  """
  ends = (i + s * (n - 1) + 1 for i, s, n in zip(start, strides, size, strict=True))
  return lax.slice(x, (0, *start, 0), (x.shape[0], *ends, x.shape[3]), (1, *strides, 1))


def repeated(x: Float[Array, 'n h w cin'], conv: Conv) -> Float[Array, 'n h w c']:
  """Each channel as often as it has outputs.

  >>> repeated(jnp.arange(2.).reshape(1, 1, 1, 2), Conv((1, 1, 1, 2), (1, 1, 1, 4), (), (), (), 2)).ravel()
  Array([0., 0., 1., 1.], dtype=float32)
  """
  return x if conv.w[3] == conv.x[3] else jnp.repeat(x, conv.w[3] // conv.x[3], -1)


def _pad(x, spatial):
  """Kept from being computed again for every tap."""
  return lax.optimization_barrier(jnp.pad(x, ((0, 0), *spatial, (0, 0))))


def _pair(values) -> Pair:
  first, second = values
  return first, second
