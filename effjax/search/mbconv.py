"""The space of mobile blocks: a supernet of inverted residuals and separable convolutions, and published chains."""
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.conv_bn import ConvBN
from effjax.layers.depthwise_separable import DepthwiseSeparable
from effjax.layers.inverted_residual import InvertedResidual
from effjax.search.choice import Choice, Skip
from effjax.search.encoding import Space
from effjax.search.fbnet_block import FBNetBlock

KNOWN = ("'mb<expand>_k<kernel>' such as mb3_k3, 'mb6_k5_se', 'fb<expand>_k<kernel>' such as fb3_k3, 'fb1_k5_g2', "
         "'sep_k<kernel>', 'conv_k<kernel>', 'skip' and 'identity'")


def _stages(*stages):
  """Blocks of `(features, depth, strides)`: the first of a stage has its strides."""
  return tuple((features, strides if i == 0 else 1) for features, depth, strides in stages for i in range(depth))


# What `MBConvNet` takes besides num_classes, for images of 224x224. A block of 16 channels stays as it is; of the 21
# others the 6 that begin a stage have 6 operators, the 15 that may be skipped 7: 6^6 7^15 networks.
PROXYLESSNAS: Mapping[str, Any] = MappingProxyType(dict(
    stem=32, stem_strides=2, head=1280,
    blocks=((16, 1, ('mb1_k3',)),
            *_stages((24, 4, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1))),
    operators=(*(f'mb{e}_k{k}' for e in (3, 6) for k in (3, 5, 7)), 'skip')))
# 22 blocks of nine operators each, 9^22 networks: where shapes change the identity is a 1x1 convolution.
FBNET: Mapping[str, Any] = MappingProxyType(dict(
    stem=16, stem_strides=2, head=1504,
    blocks=_stages((16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1)),
    operators=(*(f'fb{e}_k{k}' for k in (3, 5) for e in ('1', '3', '6')), 'fb1_k3_g2', 'fb1_k5_g2', 'identity')))


def mnasnet_space(blocks: int = 5) -> Space:
  """MnasNet's factorised space as data: all layers of a block are alike, `(3 2 2 4 3 3)^blocks = 432^blocks` networks.

  Per block the operator, its kernel and squeeze-excite, what goes around it, the multiple of MobileNetV2's channels and
  the layers more than MobileNetV2's. Nothing is relaxed, the paper samples: for strategies that ask for architectures
  (`encoding.draw`, `encoding.mutate`).

  Differs from the paper: it prints the product 432 alone; max and average pooling count apart, as that needs.

  Source: Tan et al., "MnasNet", CVPR 2019, arXiv:1807.11626, survey [7].

  >>> space = mnasnet_space(1)
  >>> space['block1/operator'], space['block1/layers']
  (('conv', 'sep', 'mb'), ('-1', '0', '1'))
  """
  block = {'operator': ('conv', 'sep', 'mb'), 'kernel': ('3', '5'), 'squeeze': ('0', '0.25'),
           'skip': ('max_pool', 'avg_pool', 'identity', 'none'), 'features': ('0.75', '1', '1.25'),
           'layers': ('-1', '0', '1')}
  return {f'block{i}/{axis}': options for i in range(1, blocks + 1) for axis, options in block.items()}


class MBConvNet(nn.Module):
  """Images to logits: stem 3x3, blocks, head 1x1, global mean, dense: `[n, h, w, c] -> [n, num_classes]`.

  Every block is a `Choice` among `operators`, or, with a single operator left, that operator itself; so the same
  class is the supernet, a plain MobileNetV2-like network and the network that was found.
  Parameters under `stem`, `block1` ..., `head`, `classifier`; a block's choice is `block1/choice`.

  Args:
    num_classes: logits.
    stem: channels of the 3x3 convolution in front.
    stem_strides: its strides; 1 for images of 8x8, 2 to quarter the cost for larger ones.
    blocks: (features, strides) of each, or (features, strides, operators) of one with operators of its own.
    operators: names: `mb<expand>_k<kernel>` (InvertedResidual), with `_se` behind it a squeeze-excite of a fourth of
      the input channels, as MnasNet's; `fb<expand>_k<kernel>`, `fb<expand>_k<kernel>_g<groups>` (FBNetBlock);
      `sep_k<kernel>` (DepthwiseSeparable); `conv_k<kernel>` (ConvBN); `skip`, which is offered only where strides is 1
      and the channels stay; `identity`, which is a 1x1 ConvBN elsewhere, as FBNet's.
    head: channels of the 1x1 convolution behind the blocks.
    paths: as in `Choice`.
    axis_name, dtype: as in `ConvBN`.

  Raises:
    EffjaxError: an unknown operator; a block that no operator fits.

  Source: blocks of MobileNetV2, survey [10], and MnasNet, survey [7]; the spaces of ProxylessNAS (Cai et al. 2019,
  arXiv:1812.00332) and FBNet (Wu et al. 2019, arXiv:1812.03443): `MBConvNet(1000, **PROXYLESSNAS)`, `**FBNET`.

  >>> import jax
  >>> net, x = MBConvNet(10, operators=('mb3_k3', 'sep_k3', 'skip')), jnp.ones((2, 8, 8, 1))
  >>> logits, variables = jax.eval_shape(lambda key: net.init_with_output(key, x, False), jax.random.key(0))
  >>> logits.shape, sorted(variables['params']['block1']), variables['params']['block1']['choice'].shape
  ((2, 10), ['choice', 'mb3_k3', 'sep_k3'], (3,))
  """
  num_classes: int
  stem: int = 16
  stem_strides: int = 1
  blocks: tuple[tuple[int, int] | tuple[int, int, tuple[str, ...]], ...] = ((16, 1), (24, 2), (24, 1), (32, 2), (32, 1))
  operators: tuple[str, ...] = ('mb3_k3', 'mb6_k3', 'mb3_k5', 'sep_k3', 'skip')
  head: int = 64
  paths: int | None = None
  axis_name: str | None = None
  dtype: DTypeLike | None = None

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, 'n classes']:
    same = dict(axis_name=self.axis_name, dtype=self.dtype)
    x = ConvBN(self.stem, 3, self.stem_strides, name='stem', **same)(x, train)
    for i, (features, strides, *own) in enumerate(self.blocks, 1):
      x = self._block(f'block{i}', x.shape[-1], features, strides, *own or [self.operators])(x, train)
    x = ConvBN(self.head, 1, name='head', **same)(x, train)
    return nn.Dense(self.num_classes, dtype=self.dtype, name='classifier')(jnp.mean(x, (1, 2)))

  def _block(self, name, channels, features, strides, operators):
    fits = strides == 1 and channels == features
    offered = [op for op in operators if op != 'skip' or fits]
    same = dict(axis_name=self.axis_name, dtype=self.dtype)
    make = lambda op, **where: _operator(op, channels, features, strides, fits, **same, **where)
    if not offered:
      raise EffjaxError(f'MBConvNet: no operator of {operators} fits {name!r}, which goes from {channels} to '
                        f'{features} channels with strides {strides}: add one besides skip')
    if len(offered) == 1:
      return make(offered[0], name=name)
    ops = tuple(make(op, name=op, parent=None) for op in offered)
    return Choice(ops, self.paths, name=name)


def _operator(op, channels, features, strides, fits, *, axis_name, dtype, **where):
  same = dict(axis_name=axis_name, dtype=dtype, **where)
  if op in ('skip', 'identity'):
    return Skip(**where) if fits else ConvBN(features, 1, strides, **same)
  if match := re.fullmatch(r'mb([1-9]\d*)_k([1-9]\d*)(_se)?', op):
    squeeze = max(1, channels // 4) if match[3] else 0
    return InvertedResidual(features, strides, int(match[1]), int(match[2]), squeeze=squeeze, **same)
  if match := re.fullmatch(r'fb([1-9]\d*)_k([1-9]\d*)(?:_g([1-9]\d*))?', op):
    return FBNetBlock(features, strides, int(match[1]), int(match[2]), int(match[3] or 1), **same)
  if match := re.fullmatch(r'sep_k([1-9]\d*)', op):
    return DepthwiseSeparable(features, strides, int(match[1]), **same)
  if match := re.fullmatch(r'conv_k([1-9]\d*)', op):
    return ConvBN(features, int(match[1]), strides, **same)
  raise EffjaxError(f'MBConvNet: unknown operator {op!r}: known are {KNOWN}')
