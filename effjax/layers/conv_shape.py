"""The shape of a convolution: all that is known of it before there are arrays."""
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jax import lax

Pair = tuple[int, int]


class Conv(NamedTuple):
  """A convolution of NHWC images by an HWIO kernel: their shapes, and per spatial axis steps and (low, high) padding.

  >>> conv = Conv((1, 8, 8, 4), (3, 3, 1, 8), (2, 2), (1, 1), ((0, 1), (0, 1)), 4)
  >>> conv.size, conv.spans, conv.depthwise, conv.pointwise
  ((4, 4), (3, 3), True, False)
  """
  x: tuple[int, ...]
  w: tuple[int, ...]
  strides: Pair
  dilation: Pair
  padding: tuple[Pair, Pair]
  groups: int
  precision: lax.PrecisionLike = None

  @classmethod
  def of(cls, x: Sequence[int], w: Sequence[int], params: Mapping[str, Any]) -> 'Conv':
    """With the parameters of lax's primitive."""
    return cls(tuple(x), tuple(w), tuple(params['window_strides']), tuple(params['rhs_dilation']),
               tuple(map(tuple, params['padding'])), params['feature_group_count'], params['precision'])

  @property
  def spans(self) -> Pair:
    """Height and width of what one output reads."""
    h, w = ((k - 1) * d + 1 for k, d in zip(self.w[:2], self.dilation, strict=True))
    return h, w

  @property
  def size(self) -> Pair:
    """Height and width of the output."""
    ends = zip(self.x[1:3], self.spans, self.strides, self.padding, strict=True)
    h, w = ((n + sum(p) - span) // s + 1 for n, span, s, p in ends)
    return h, w

  @property
  def depthwise(self) -> bool:
    """Whether each output channel reads one input channel."""
    return self.w[2] == 1

  @property
  def pointwise(self) -> bool:
    """Whether it is a matrix product: a 1x1 kernel, no groups."""
    return self.w[:2] == (1, 1) and self.groups == 1

  @property
  def taps(self) -> Iterator[tuple[Pair, Pair]]:
    """The entries of the kernel, and where in the padded x each first reads."""
    for a in range(self.w[0]):
      for b in range(self.w[1]):
        yield (a, b), (a * self.dilation[0], b * self.dilation[1])

  @property
  def trimmed(self) -> 'tuple[Conv, tuple[slice, slice]]':
    """The same without the outer rows and columns of the kernel that only ever read padding, and which remain.

    >>> Conv((1, 1, 1, 4), (3, 3, 1, 4), (1, 1), (1, 1), ((1, 1), (1, 1)), 4).trimmed[1]
    (slice(1, 2, None), slice(1, 2, None))
    """
    ends, padding = zip(*map(self._trim, range(2)), strict=True)
    size = tuple(last - first for first, last in ends)
    return self._replace(w=(*size, *self.w[2:]), padding=padding), tuple(slice(*each) for each in ends)

  def _trim(self, axis):
    """First and end of what remains of the kernel, and the padding that it needs."""
    (low, high), d, out = self.padding[axis], self.dilation[axis], (self.size[axis] - 1) * self.strides[axis]
    reads = [a for a in range(self.w[axis]) if low <= out + a * d and a * d < low + self.x[axis + 1]] or [0]
    first, last = min(reads[0], low // d), max(reads[-1], self.w[axis] - 1 - high // d)
    return (first, last + 1), (low - first * d, high - (self.w[axis] - 1 - last) * d)
