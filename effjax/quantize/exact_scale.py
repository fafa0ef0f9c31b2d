"""One scale and few codes: the least squared error over both, exactly, in an order of sums that no compiler changes."""
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.quantize.granularity import shared_axes

Codes = tuple[int, ...]
_SMALLEST = 1e-30  # of a row's largest entry, so that its inverse is finite


@functools.partial(jax.jit, static_argnums=1)  # one compilation, also outside of a step
def exact_scale(v: Float[Array, 'g n'], codes: Codes) -> Float[Array, ' g']:
  """The `a` of `min_{a, q} ||v - a q||^2`, each entry of q among `codes`, for each row of magnitudes.

  For a given a the best q is the nearest code, which changes at the break points `v_i / ((c_j + c_{j+1}) / 2)` alone.
  Each q between two of them has `a = v.q / q.q` and the error `||v||^2 - (v.q)^2 / q.q`: the sweep from the largest
  break point to the smallest tries all. O(n k log(n k)) for k + 1 codes. A row of zeros has a = 0.

  Args:
    v: not negative.
    codes: ascending, the first one 0 or 1 (see `check_codes`).

  >>> exact_scale(jnp.array([[1., .9, .1]]), (0, 1)), exact_scale(jnp.array([[1., .9, .1]]), (1,))
  (Array([0.95], dtype=float32), Array([0.6666667], dtype=float32))
  """
  steps, first = len(codes) - 1, codes[0]
  c = np.asarray(codes, np.float32)
  spread = lambda each: jnp.broadcast_to(jnp.asarray(each, jnp.float32), (*v.shape, steps)).reshape(len(v), -1)
  repeated = jnp.repeat(v, steps, 1)
  points = repeated * spread(2 / (c[1:] + c[:-1]))
  _, gains, squares = jax.lax.sort((-points, repeated * spread(np.diff(c)), spread(np.diff(c**2))), num_keys=1)
  if first:  # before any break point, all entries have the first code
    gains = jnp.concatenate([ordered_sum(v)[:, None], gains], 1)
    squares = jnp.concatenate([jnp.full((len(v), 1), v.shape[1], jnp.float32), squares], 1)
  gains, inverse = _running(gains), 1 / _running(squares)
  ratio = gains * (1 / jnp.maximum(jnp.max(v, 1, keepdims=True), _SMALLEST))  # its square neither over- nor underflows
  best = jnp.argmax(ratio * ratio * inverse, 1)[:, None]
  return (jnp.take_along_axis(gains, best, 1) * jnp.take_along_axis(inverse, best, 1))[:, 0]


def nearest_codes(w: Float[Array, '*s'], scale: Float[Array, '#*s'], codes: Codes) -> Float[Array, '*s']:
  """The code nearest to `w / scale`, of `codes` with the sign of w: the smaller one of a tie, + at 0; float32.

  >>> nearest_codes(jnp.array([-.8, .2, 3.]), jnp.array([1.]), (0, 1, 2))
  Array([-1.,  0.,  2.], dtype=float32)
  """
  w = w.astype(jnp.float32)
  found = jnp.full_like(w, codes[0])
  for low, high in zip(codes, codes[1:]):
    found = jnp.where(jnp.abs(w) > scale * ((low + high) / 2), jnp.full_like(w, high), found)
  return jnp.where((w >= 0) | (found == 0), found, -found)  # no negative zero: an integer has none


def by_group(who: str, fit: Callable, w: Float[Array, '*s'], per_channel: bool,
             channel_axis: int) -> Float[Array, '#*s']:
  """`fit(|w| as rows [groups, weights])`, one number a row, in a shape that broadcasts to w: one per channel or one.

  Raises:
    EffjaxError: as `granularity.shared_axes` does for `who`.

  >>> by_group('xnor', lambda rows: rows.max(1), jnp.array([[1., -2.], [3., 0.]]), True, -1)
  Array([[3., 2.]], dtype=float32)
  """
  shared = shared_axes(who, w.shape, per_channel, channel_axis)
  kept = tuple(axis for axis in range(w.ndim) if axis not in shared)
  groups = math.prod(w.shape[axis] for axis in kept)
  rows = jnp.abs(w.astype(jnp.float32)).transpose(kept + shared).reshape(groups, -1)
  return fit(rows).reshape([1 if axis in shared else size for axis, size in enumerate(w.shape)])


@jax.jit
def ordered_sum(x: Float[Array, 'g n']) -> Float[Array, ' g']:
  """The sum of each row by halves: the same bits alone, in a larger program, and on several devices.

  >>> ordered_sum(jnp.array([[1., 2., 4.]]))
  Array([7.], dtype=float32)
  """
  while x.shape[1] > 1:
    half = (x.shape[1] + 1) // 2
    x = x[:, :half] + jnp.pad(x[:, half:], ((0, 0), (0, 2 * half - x.shape[1])))
  return x[:, 0]


def check_codes(who: str, codes: Sequence) -> Codes:
  """`codes` as a tuple: ascending whole numbers from 0 or 1 on, up to 127.

  Raises:
    EffjaxError: other ones.

  >>> check_codes('admm', (0, 1, 2, 4))
  (0, 1, 2, 4)
  """
  found = tuple(codes)
  whole = all(isinstance(code, int) and code <= 127 for code in found)
  if not (whole and found[:1] in ((0,), (1,)) and found != (0,) and sorted(set(found)) == list(found)):
    raise EffjaxError(f'{who}: codes must be ascending whole numbers, the first 0 or 1, the last 1 to 127, '
                      f'got {codes!r}: (1,) is binary, (0, 1) ternary')
  return found


def bits_of(codes: Codes) -> int:
  """The bits of an integer that holds the codes with either sign: 1 for -1 and 1 alone.

  >>> bits_of((1,)), bits_of((0, 1)), bits_of((0, 1, 2, 4))
  (1, 2, 4)
  """
  return 1 if codes == (1,) else codes[-1].bit_length() + 1


def _running(x):
  return jax.lax.associative_scan(jnp.add, x, axis=1)
