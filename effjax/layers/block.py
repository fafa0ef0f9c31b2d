"""What every block of a network agrees on, and the one way in which blocks convolve."""
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.convolution import conv_general_dilated

PADDINGS = ('SAME', 'VALID', 'symmetric')


class Block(nn.Module, kw_only=True):
  """A module that hands what a whole network agrees on to the blocks within it: `Inner(..., **self.same)`.

  Args:
    affine: whether BatchNorm has a scale and a bias.
    axis_name: mapped axis over which BatchNorm averages its statistics, under `pmap` or `shard_map`.
    dtype: of convolutions and outputs; parameters and BatchNorm stay float32.
    epsilon: of BatchNorm.
    padding: 'SAME' pads as TensorFlow does, which TFLite has for free; 'symmetric' with (k - 1) / 2 on every side, as
      PyTorch's networks do; 'VALID' not at all; or pairs. The first two differ where strides is 2 and the size even.
    widths: output channels by path of a layer, instead of the layer's own: a network that was shrunk.

  >>> Block(padding='symmetric').same['padding']
  'symmetric'
  """
  affine: bool = True
  axis_name: str | None = None
  dtype: DTypeLike | None = None
  epsilon: float = 1e-3
  padding: str | Sequence[tuple[int, int]] = 'SAME'
  widths: Mapping[str, int] | None = None

  @property
  def same(self) -> dict[str, Any]:
    """The fields of `Block`, by name."""
    return {name: getattr(self, name) for name in ('affine', 'axis_name', 'dtype', 'epsilon', 'padding', 'widths')}

  def features_of(self, features: int) -> int:
    """The channels that this layer gives: those of `widths`, else `features`."""
    return (self.widths or {}).get('/'.join(self.path), features)

  def pads(self, kernel: int | tuple[int, int], dilation: int = 1) -> str | Sequence[tuple[int, int]]:
    """The padding of a convolution or pool, as jax and `max_pool` take it.

    Raises:
      EffjaxError: an unknown padding.

    >>> Block(padding='symmetric').pads(3), Block().pads(3)
    ([(1, 1), (1, 1)], 'SAME')
    """
    if isinstance(self.padding, str) and self.padding not in PADDINGS:
      raise EffjaxError(f'padding {self.padding!r} is unknown: choose one of {PADDINGS}')
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    return [((k - 1) * dilation // 2,) * 2 for k in size] if self.padding == 'symmetric' else self.padding

  def convolve(self, x: Float[Array, 'n h w cin'], features: int, kernel: int | tuple[int, int],
               strides: int | tuple[int, int] = 1, *, groups: int = 1, dilation: int = 1,
               bias: bool = False) -> Float[Array, 'n h2 w2 features']:
    """The convolution of this layer, with its parameters under `conv`.

    Raises:
      EffjaxError: channels that groups do not divide; an unknown padding.
    """
    features, size = self.features_of(features), (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
    if x.shape[-1] % groups or features % groups:
      raise EffjaxError(f'{type(self).__name__} {"/".join(self.path) or "(top)"}: {groups} groups do not divide '
                        f'{x.shape[-1]} input and {features} output channels: choose another width or other groups')
    return nn.Conv(features, size, strides, self.pads(size, dilation), kernel_dilation=dilation,
                   feature_group_count=groups, use_bias=bias, dtype=self.dtype,
                   conv_general_dilated=conv_general_dilated, name='conv')(x)


def round_channels(channels: float, multiple: int = 8) -> int:
  """The nearest multiple that is at least `multiple`, one up if that took more than 10 % away: MobileNet's widths.

  >>> [round_channels(c * .35) for c in (16, 24, 32, 64, 1280)]
  [8, 8, 16, 24, 448]
  """
  nearest = max(multiple, int(channels + multiple / 2) // multiple * multiple)
  return nearest if nearest >= .9 * channels else nearest + multiple
