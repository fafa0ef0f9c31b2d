"""The functions that a device has a kernel for, in float64, to compare with; `effjax.graph.functions` finds them."""
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

GRID = np.linspace(-8., 8., 511)
Table = Iterable[tuple[str, dict[str, Any], Callable]]


def match(x: np.ndarray, got: np.ndarray, table: Table, close: float) -> tuple[str, dict[str, Any]] | None:
  """(name, settings) of the first function whose values at `x` are `got`, to `close (1 + |value|)`.

  >>> match(GRID, np.tanh(GRID), ELEMENTWISE, 1e-6)
  ('tanh', {})
  >>> match(GRID, np.where(GRID < 0, .25 * GRID, GRID), ELEMENTWISE, 1e-6)
  ('leaky_relu', {'alpha': 0.25})
  """
  for name, settings, function in table:
    with np.errstate(all='ignore'):
      wanted = function(x)
    if wanted is not None and wanted.shape == got.shape and _same(got, wanted, close):
      return name, dict(settings)
  alpha = float(np.float32(got[0] / x[0])) if table is ELEMENTWISE and np.isfinite(got[0]) else 1.
  if alpha > 0 and alpha != 1 and _same(got, np.where(x < 0, alpha * x, x), close):
    return 'leaky_relu', {'alpha': alpha}
  return None


def _same(got, wanted, close):
  if got.dtype != wanted.dtype:
    return False
  finite = np.isfinite(wanted)
  same = np.array_equal(got[~finite], wanted[~finite], equal_nan=True)
  return same and bool((np.abs(got[finite] - wanted[finite]) <= close * (1 + np.abs(wanted[finite]))).all())


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
  at = np.arange(m)
  if kind == 'nearest':
    source = np.floor((at + .5) * n / m) if half else np.rint(at * (n - 1) / max(m - 1, 1)) if aligned else at * n // m
    return np.eye(n)[np.clip(source, 0, n - 1).astype(int)]
  source = (at + .5) * n / m - .5 if half else at * (n - 1) / max(m - 1, 1) if aligned else at * n / m
  source = np.clip(source, 0, n - 1)
  return np.maximum(0, 1 - np.abs(source[:, None] - np.arange(n)))
