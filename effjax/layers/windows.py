"""Where the windows of a pool are: sizes, steps and padding in the ways that people write them."""
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax import lax

from effjax.errors import EffjaxError

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


class Windows(NamedTuple):
  """Per spatial axis: the size of a window, the step to the next, and (low, high) padding."""
  window: Pair
  strides: Pair
  padding: Pads

  def counts(self, size: Sequence[int]) -> Pair:
    """How many windows fit an image of this height and width.

    >>> Windows((3, 3), (2, 2), ((0, 1), (0, 1))).counts((8, 6))
    (4, 3)
    """
    h, w = ((n + sum(p) - k) // s + 1 for n, k, s, p in zip(size, *self, strict=True))
    return h, w


def windows(where: str, shape: Sequence[int], window: int | Pair, strides: int | Pair | None = None,
            padding: str | Sequence[Pair] = 'VALID') -> Windows:
  """The windows over NHWC images of a shape.

  Args:
    where: the name of the function, for errors.
    window, strides: one number or (height, width); strides None: the window.
    padding: 'SAME', 'VALID', or ((top, bottom), (left, right)).

  Raises:
    EffjaxError: not four axes; sizes below 1; a padding of another form, or in which a whole window fits; windows
      larger than the padded image.

  >>> windows('pool', (1, 8, 6, 3), 3, 2, 'SAME')
  Windows(window=(3, 3), strides=(2, 2), padding=((0, 1), (0, 1)))
  """
  if len(shape) != 4:
    raise EffjaxError(f'{where}: x has shape {tuple(shape)}, wanted NHWC: give four axes')
  window = pair(where, 'window', window)
  strides = window if strides is None else pair(where, 'strides', strides)
  made = Windows(window, strides, _pads(where, shape[1:3], window, strides, padding))
  if min(made.counts(shape[1:3])) < 1:
    raise EffjaxError(f'{where}: window {window} is larger than x of shape {tuple(shape)} with padding {made.padding}: '
                      'make it smaller, or pad more')
  return made


def ceil_mode(shape: Sequence[int], window: int | Pair, strides: int | Pair | None = None,
              padding: int | Pair = 0) -> Pads:
  """The padding with which the last window may end beyond the image, as with `ceil_mode=True` in PyTorch and Caffe.

  There are `ceil((n + 2 p - k) / s) + 1` windows, less one that would begin beyond the image and its left padding.
  An average over them divides by entries of the image with `count_padding=False`, as PyTorch does with
  `count_include_pad=False`.

  Args:
    shape: of the NHWC images. window, strides: as for the pool. padding: on both sides: one number, or one per axis.

  Raises:
    EffjaxError: a window or strides below 1, or a padding below 0.

  >>> ceil_mode((1, 112, 112, 64), 3, 2)
  ((0, 1), (0, 1))
  """
  window, padding = pair('ceil_mode', 'window', window), pair('ceil_mode', 'padding', padding, least=0)
  strides = window if strides is None else pair('ceil_mode', 'strides', strides)
  top, left = (_ceil(*each) for each in zip(shape[1:3], window, strides, padding, strict=True))
  return top, left


def _ceil(size, window, stride, padding):
  count = -(-(size + 2 * padding - window) // stride) + 1
  count -= (count - 1) * stride >= size + padding
  return padding, max(0, (count - 1) * stride + window - size - padding)


def pair(where: str, name: str, value: Any, least: int = 1) -> Pair:
  """(height, width) of one whole number for both, or of two; `where` and `name` are for the error.

  Raises:
    EffjaxError: something else, or less than `least`.

  >>> pair('pool', 'strides', 2)
  (2, 2)
  """
  first, second = value if isinstance(value, Sequence) and len(value) == 2 else (value, value)
  if not all(isinstance(n, numbers.Integral) and n >= least for n in (first, second)):
    raise EffjaxError(f'{where}: {name}={value!r}: give a whole number from {least}, or two (height, width)')
  return int(first), int(second)


def _pads(where, size, window, strides, padding) -> Pads:
  if isinstance(padding, str) and padding in ('SAME', 'VALID'):
    padding = lax.padtype_to_pads(size, window, strides, padding)
  pairs = not isinstance(padding, str) and isinstance(padding, Sequence) and len(padding) == 2
  if not pairs or not all(isinstance(p, Sequence) and len(p) == 2 and min(p) >= 0 for p in padding):
    raise EffjaxError(f"{where}: padding={padding!r}: give 'SAME', 'VALID' or ((top, bottom), (left, right)), from 0")
  if any(max(p) >= k for p, k in zip(padding, window, strict=True)):
    raise EffjaxError(f'{where}: padding={padding!r} has room for a whole window {window}, which would see nothing of '
                      'x: pad less than the window')
  (top, bottom), (left, right) = padding
  return (int(top), int(bottom)), (int(left), int(right))
