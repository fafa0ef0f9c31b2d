"""The shape of a convolution: all that is known of it before there are arrays."""
from collections.abc import Mapping, Sequence
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
