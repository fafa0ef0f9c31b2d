"""The functions that a device has a kernel for, in float64, to compare with; `effjax.graph.functions` finds them."""
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

_NEAR, _FAR = np.linspace(-8., 8., 511), 2. ** np.arange(4, 11)
GRID = np.concatenate([-_FAR[::-1], _NEAR, _FAR])  # as far as clamps go that guard an exponential
OFFSETS = (0., 50., -50.)  # of random rows: softmax does not change, a clamp shows
Table = Iterable[tuple[str, dict[str, Any], Callable]]

_OVERFLOW = 40.  # beyond it, what is not finite says nothing: `exp(2 x)` is infinite in float32
_RELATIVE = frozenset({'exp', 'abs', 'sqrt', 'rsqrt', 'leaky_relu', 'softmax'})  # an epsilon matters


def match(x: np.ndarray, got: np.ndarray, table: Table, close: float) -> tuple[str, dict[str, Any]] | None:
  """(name, settings) of the function whose values at `x` are nearest to `got`, at most `close (1 + |value|)` away.

  Of functions whose small values matter (exp, roots, softmax ...): at most `close |value|`. Integers are equal.

  >>> match(GRID, np.tanh(GRID), ELEMENTWISE, 1e-6)
  ('tanh', {})
  >>> match(GRID, np.where(GRID < 0, .25 * GRID, GRID), ELEMENTWISE, 1e-6)
  ('leaky_relu', {'alpha': 0.25})
  """
  entries = [*table, *_leaky_relu(x, got, close)] if table is ELEMENTWISE else list(table)
  with np.errstate(all='ignore'):
    errors = [_error(x, got, function(x), 1e-30 if name in _RELATIVE else 1.) for name, _, function in entries]
  best = int(np.argmin(errors)) if errors else 0
  return (entries[best][0], dict(entries[best][1])) if errors and errors[best] <= close else None


def _error(x, got, wanted, floor):
  """The largest difference, as a part of `floor + |wanted|`."""
  if got.dtype != wanted.dtype or got.shape != wanted.shape:
    return np.inf
  if not np.issubdtype(got.dtype, np.floating):
    return 0. if np.array_equal(got, wanted) else np.inf
  if x.shape == got.shape:
    says = (np.abs(x) <= _OVERFLOW) | np.isfinite(got)
    got, wanted = got[says], wanted[says]
  finite = np.isfinite(wanted)
  if not np.array_equal(got[~finite], wanted[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
    return np.inf
  return np.max(np.abs(got[finite] - wanted[finite]) / (floor + np.abs(wanted[finite])), initial=0.)


def _leaky_relu(x, got, close):
  """The leaky ReLU that `got` may be: its slope is that of the first value, at a power of two."""
  alpha = float(np.float32(got[0] / x[0])) if got.shape == x.shape and np.isfinite(got[0]) else 1.
  if alpha > 0 and abs(alpha - 1) > max(1e-3, 2 * close):  # else it is affine
    yield 'leaky_relu', {'alpha': alpha}, lambda x: np.where(x < 0, alpha * x, x)


def _softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def _erf_gelu(x):
  return .5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _tanh_gelu(x):
  return .5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + .044715 * x ** 3)))


ELEMENTWISE: Table = (
    ('logistic', {}, lambda x: 1 / (1 + np.exp(-x))), ('tanh', {}, np.tanh),
    ('hard_swish', {}, lambda x: x * np.clip(x + 3, 0, 6) / 6),
    ('gelu', {'approximate': True}, _tanh_gelu), ('gelu', {'approximate': False}, _erf_gelu),
    ('elu', {}, lambda x: np.where(x > 0, x, np.expm1(x))), ('exp', {}, np.exp), ('log', {}, np.log),
    ('sqrt', {}, np.sqrt), ('rsqrt', {}, lambda x: 1 / np.sqrt(x)), ('abs', {}, np.abs))

ROWS: Table = (
    ('softmax', {}, _softmax), ('log_softmax', {}, lambda x: np.log(_softmax(x))),
    ('argmax', {}, lambda x: x.argmax(-1)))


def resizes(before: tuple[int, ...], after: tuple[int, ...]) -> Table:
  """Nearest and bilinear resizing from one NHWC shape to another, in TFLite's three conventions.

  Half pixels: `src = (dst + .5) in / out - .5`; aligned corners: `src = dst (in - 1) / (out - 1)`; else `dst in / out`.
  Nearest rounds `src` with aligned corners, halves up; with half pixels it is the floor of `(dst + .5) in / out`, else
  of `src`. All are computed as the device does, whose rounding moves a pixel now and then.
  """
  if before[0] != after[0] or before[3] != after[3]:
    return []
  sizes = list(zip(before[1:3], after[1:3]))
  ways = (False, True), (False, False), (True, False)
  made = lambda kind, aligned, half: (
      f'resize_{kind}', {'size': after[1:3], 'align_corners': aligned, 'half_pixel': half},
      lambda x: np.einsum('Hh,Ww,nhwc->nHWc', *(_weights(kind, *size, aligned, half) for size in sizes), x))
  return [made(kind, *way) for kind in ('nearest', 'bilinear') for way in ways]


def _weights(kind: str, n: int, m: int, aligned: bool, half: bool) -> np.ndarray:
  """How much of each of n pixels is in each of m."""
  if kind == 'nearest':
    return np.eye(n)[_nearest(n, m, aligned, half)]
  at = np.arange(m)
  source = (at + .5) * n / m - .5 if half else at * (n - 1) / max(m - 1, 1) if aligned else at * n / m
  source = np.clip(source, 0, n - 1)
  return np.maximum(0, 1 - np.abs(source[:, None] - np.arange(n)))


def _nearest(n, m, aligned, half):
  """In float32, halves up; without corners and half pixels in integers with 16 fraction bits."""
  if not aligned and not half:
    return np.minimum(np.arange(m) * ((n << 16) // m + 1) >> 16, n - 1)
  corner = int(aligned and m > 1)
  step = np.float32(n - corner) / np.float32(m - corner)
  place = (np.arange(m, dtype=np.float32) + np.float32(half / 2)) * step
  return np.minimum(np.floor(place.astype(np.float64) + aligned / 2).astype(int), n - 1)
