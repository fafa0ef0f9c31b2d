"""Networks of interleaved group convolutions: Zhang, Qi, Xiao, Wang, ICCV 2017, arXiv:1707.02725, survey [20]; IGCV2:
Xie, Wang, Zhang, Lai, Hong, Qi, CVPR 2018, arXiv:1804.06202, survey [21]."""
import functools
from collections.abc import Callable

import flax.linen as nn

from effjax.layers.block import round_channels
from effjax.layers.conv_bn import ConvBN
from effjax.layers.igcv1 import IGCV1
from effjax.layers.igcv2 import IGCV2
from effjax.layers.max_pool import max_pool
from effjax.layers.residual import Residual
from effjax.models.network import Network
from effjax.models.variant import Variant


class IGCResNet(Network):
  """ResNet-18 of `IGCV1` blocks: 7x7 convolution, max pool, four stages of residual blocks of two each, classifier.

  Stage i has `2^(i - 1) features` channels, all in groups of `M = group_width`; shortcuts append channels of zeros. The
  paper does not print how it halves the size; here the first block of a stage doubles the channels within the groups of
  its input. L100M2 then has 8.67 million parameters and 1.46 billion multiply-accumulates, where the paper says 8.61
  and 1.3. Intermediates: `stage1` to `stage4`, `features`, `pooled`.

  Args:
    features: channels of stage 1 before `width`.
    group_width: M.
    depths: residual blocks of each stage.
    others: as in `Network`.

  >>> import jax, jax.numpy as jnp
  >>> net = IGCResNet(10, width=.04, depths=(1, 1, 1, 1))
  >>> jax.eval_shape(lambda key: net.init_with_output(key, jnp.ones((1, 32, 32, 3)), False)[0], jax.random.key(0)).shape
  (1, 10)
  """
  features: int = 200
  group_width: int = 2
  depths: tuple[int, ...] = (2, 2, 2, 2)

  def forward(self, x, train):
    """Stem and stages."""
    features = round_channels(self.features * self.width, self.group_width)
    x = ConvBN(features, 7, 2, activation=nn.relu, name='stem', **self.same)(x, train)
    x = max_pool(x, 3, 2, self.pads(3))
    block = lambda features: functools.partial(IGCV1, width=self.group_width)
    return _stages(self, block, features, x, train)


class IGCV2Net(Network):
  """ResNet-20 of `IGCV2` blocks for images of 32: 3x3 convolution, three stages of residual blocks of two, classifier.

  Stage i has `2^(i - 1) features` channels, whose factors are the nearest to their root: the complementary condition
  holds strictly. The paper relaxes it, with widths that it does not print in full: this is none of its networks.
  Intermediates: `stage1` to `stage3`, `features`, `pooled`.

  Args:
    features: channels of stage 1 before `width`.
    depths: residual blocks of each stage.
    others: as in `Network`.

  >>> import jax, jax.numpy as jnp
  >>> net = IGCV2Net(width=.25, depths=(1, 1, 1))
  >>> jax.eval_shape(lambda key: net.init_with_output(key, jnp.ones((1, 8, 8, 3)), False)[0], jax.random.key(0)).shape
  (1, 10)
  """
  num_classes: int = 10
  features: int = 64
  depths: tuple[int, ...] = (3, 3, 3)
  stride = 4

  def forward(self, x, train):
    """Stem and stages."""
    features = round_channels(self.features * self.width)
    x = ConvBN(features, activation=nn.relu, name='stem', **self.same)(x, train)
    block = lambda features: functools.partial(IGCV2, factors=_factors(features))
    return _stages(self, block, features, x, train)


class _Twice(Residual):
  """Two blocks with a shortcut; the second has no activation before the sum."""
  block: Callable = IGCV1

  def branch(self, x, train):
    x = self.block(self.features, strides=self.strides, name='block1', **self.same)(x, train)
    return self.block(self.features, activation=None, name='block2', **self.same)(x, train)


def _stages(net, block, features, x, train):
  """Residual blocks, of which the first of a stage doubles the channels and halves the size, but in stage 1."""
  for i, depth in enumerate(net.depths, 1):
    for j in range(1, depth + 1):
      down = i > 1 and j == 1
      channels = features * 2**(i - 1)
      x = _Twice(channels, 2 if down else 1, 'pad' if down else 'identity', block=block(channels),
                 name=f'stage{i}_block{j}', **net.same)(x, train)
    x = net.mark(f'stage{i}', x)
  return net.classify(net.mark('features', x))


def _factors(features):
  """The two factors that are nearest to each other."""
  small = max(k for k in range(1, int(features**.5) + 1) if features % k == 0)
  return small, features // small


VARIANTS = {
    'igc_l100m2': Variant(functools.partial(IGCResNet, epsilon=1e-5), paper='8.61 M, 1.3 G'),
    'igcv2_cifar': Variant(functools.partial(IGCV2Net, epsilon=1e-5), 32)}
