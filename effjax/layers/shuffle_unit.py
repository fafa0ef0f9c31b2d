"""ShuffleNet's unit: grouped 1x1 convolutions, mixed by a shuffle, around a depthwise 3x3."""
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.layers.avg_pool import avg_pool
from effjax.layers.block import Block
from effjax.layers.channel_shuffle import channel_shuffle
from effjax.layers.conv_bn import ConvBN


class ShuffleUnit(Block):
  """`y = relu(x + expand(depthwise(shuffle(reduce(x)))))`, or `relu(concat(avg_pool(x), ...))` where strides is 2.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`. `reduce` and `expand` are grouped 1x1
  convolutions; only `reduce` has an activation. What is concatenated has `features - cin` channels. Parameters under
  `reduce`, `depthwise`, `expand`.

  Args:
    features: output channels, those of x where strides is 1.
    groups: of the 1x1 convolutions and of the shuffle.
    strides: 1 adds x, 2 halves the size and concatenates.
    hidden: channels in between; None: a quarter of features.
    reduce_groups: of the first 1x1 instead of `groups`: the paper's first unit has 1, since it gets few channels.
    others: as in `Block`.

  Raises:
    EffjaxError: channels that groups do not divide.

  Source: Zhang, Zhou, Lin, Sun, "ShuffleNet", CVPR 2018, arXiv:1707.01083, survey [9].

  >>> import jax
  >>> unit = ShuffleUnit(24, groups=3, strides=2)
  >>> unit.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 12)), False)[0].shape
  (1, 4, 4, 24)
  """
  features: int
  groups: int = 3
  strides: int = 1
  hidden: int | None = None
  reduce_groups: int | None = None

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    hidden = self.features // 4 if self.hidden is None else self.hidden
    groups = self.groups if self.reduce_groups is None else self.reduce_groups
    features = self.features if self.strides == 1 else self.features - x.shape[-1]
    linear = dict(activation=None, **self.same)
    y = ConvBN(hidden, 1, groups=groups, activation=nn.relu, name='reduce', **self.same)(x, train)
    y = channel_shuffle(y, self.groups)
    y = ConvBN(y.shape[-1], 3, self.strides, y.shape[-1], name='depthwise', **linear)(y, train)
    y = ConvBN(features, 1, groups=self.groups, name='expand', **linear)(y, train)
    return nn.relu(x + y if self.strides == 1 else jnp.concatenate([self._halved(x), y], -1))

  def _halved(self, x):
    if self.padding == 'symmetric':
      return avg_pool(x, 3, 2, ((1, 1), (1, 1)))
    return avg_pool(x, 3, 2, self.padding, count_padding=False)
