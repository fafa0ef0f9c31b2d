"""The space of mobile blocks: a supernet of inverted residuals and separable convolutions."""
import re

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.conv_bn import ConvBN
from effjax.layers.depthwise_separable import DepthwiseSeparable
from effjax.layers.inverted_residual import InvertedResidual
from effjax.search.choice import Choice, Skip

KNOWN = ("'mb<expand>_k<kernel>' such as mb3_k3 or mb6_k5, 'sep_k<kernel>' such as sep_k3, and 'skip'")


class MBConvNet(nn.Module):
  """Images to logits: stem 3x3, blocks, head 1x1, global mean, dense: `[n, h, w, c] -> [n, num_classes]`.

  Every block is a `Choice` among `operators`, or, with a single operator left, that operator itself; so the same
  class is the supernet, a plain MobileNetV2-like network and the network that was found.
  Parameters under `stem`, `block1` ..., `head`, `classifier`; a block's choice is `block1/choice`.

  Args:
    num_classes: logits.
    stem: channels of the 3x3 convolution in front.
    stem_strides: its strides; 1 for images of 8x8, 2 to quarter the cost for larger ones.
    blocks: (features, strides) of each.
    operators: names: `mb<expand>_k<kernel>` (InvertedResidual), `sep_k<kernel>` (DepthwiseSeparable), `skip`, which is
      offered only where strides is 1 and the channels stay.
    head: channels of the 1x1 convolution behind the blocks.
    one_path: as in `Choice`.
    axis_name, dtype: as in `ConvBN`.

  Raises:
    EffjaxError: an unknown operator; a block that no operator fits.

  Source: blocks of MobileNetV2, survey [10]; the spaces of ProxylessNAS (Cai et al. 2019, arXiv:1812.00332) and FBNet
  (Wu et al. 2019, arXiv:1812.03443).

  >>> import jax
  >>> net = MBConvNet(10, operators=('mb3_k3', 'sep_k3', 'skip'))
  >>> logits, variables = net.init_with_output(jax.random.key(0), jnp.ones((2, 8, 8, 1)), False)
  >>> logits.shape, sorted(variables['params']['block1']), variables['params']['block1']['choice'].shape
  ((2, 10), ['choice', 'mb3_k3', 'sep_k3'], (3,))
  """
  num_classes: int
  stem: int = 16
  stem_strides: int = 1
  blocks: tuple[tuple[int, int], ...] = ((16, 1), (24, 2), (24, 1), (32, 2), (32, 1))
  operators: tuple[str, ...] = ('mb3_k3', 'mb6_k3', 'mb3_k5', 'sep_k3', 'skip')
  head: int = 64
  one_path: bool = False
  axis_name: str | None = None
  dtype: DTypeLike | None = None

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, 'n classes']:
    same = dict(axis_name=self.axis_name, dtype=self.dtype)
    x = ConvBN(self.stem, 3, self.stem_strides, name='stem', **same)(x, train)
    for i, (features, strides) in enumerate(self.blocks, 1):
      x = self._block(f'block{i}', x.shape[-1], features, strides)(x, train)
    x = ConvBN(self.head, 1, name='head', **same)(x, train)
    return nn.Dense(self.num_classes, dtype=self.dtype, name='classifier')(jnp.mean(x, (1, 2)))

  def _block(self, name, channels, features, strides):
    offered = [op for op in self.operators if op != 'skip' or (strides == 1 and channels == features)]
    make = lambda op, **where: _operator(op, features, strides, axis_name=self.axis_name, dtype=self.dtype, **where)
    if not offered:
      raise EffjaxError(f'MBConvNet: no operator of {self.operators} fits {name!r}, which goes from {channels} to '
                        f'{features} channels with strides {strides}: add one besides skip')
    if len(offered) == 1:
      return make(offered[0], name=name)
    return Choice(tuple(make(op, name=op, parent=None) for op in offered), self.one_path, name=name)


def _operator(op, features, strides, *, axis_name, dtype, **where):
  same = dict(axis_name=axis_name, dtype=dtype, **where)
  if op == 'skip':
    return Skip(**where)
  if match := re.fullmatch(r'mb([1-9]\d*)_k([1-9]\d*)', op):
    return InvertedResidual(features, strides, int(match[1]), int(match[2]), **same)
  if match := re.fullmatch(r'sep_k([1-9]\d*)', op):
    return DepthwiseSeparable(features, strides, int(match[1]), **same)
  raise EffjaxError(f'MBConvNet: unknown operator {op!r}: known are {KNOWN}')
