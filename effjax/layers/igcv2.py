"""IGCV2: a depthwise convolution and several grouped pointwise ones, in place of a dense one."""
import math
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.block import Block
from effjax.layers.channel_shuffle import channel_shuffle
from effjax.layers.conv import Conv
from effjax.layers.conv_bn import ConvBN


class IGCV2(Block):
  """`y = activation(BatchNorm(P_L W_L ... P_2 W_2 W_1 x))`: W_1 depthwise, W_l 1x1 in groups of `K_l` channels.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`. Complementary condition: `prod_l K_l` is the
  number of channels. A channel is then a number with the digits `k_2 ... k_L`; W_l mixes the last one and P_l brings it
  to the front, so that with `cin == features` there is exactly one path from every input channel to every output
  channel. The 1x1 convolutions have `features sum_l K_l` weights, least where all K_l are equal. Parameters under
  `depthwise`, `pointwise1`, `pointwise2` ...

  Args:
    features: output channels, a multiple of cin.
    factors: K_2 ... K_L, channels of each group.
    strides, kernel: of the depthwise convolution.
    activation: as in `ConvBN`.
    others: as in `Block`.

  Raises:
    EffjaxError: factors whose product is not `features`; features that are no multiple of cin.

  Source: Xie, Wang, Zhang, Lai, Hong, Qi, "Interleaved structured sparse convolutional neural networks", CVPR 2018,
  arXiv:1804.06202, survey [21]. The balance condition says to give the depthwise convolution groups as well, which is
  left out, as in the paper's networks.

  >>> import jax, jax.numpy as jnp
  >>> IGCV2(12, (3, 4)).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 12)), False)[0].shape
  (1, 8, 8, 12)
  """
  features: int
  factors: tuple[int, ...]
  strides: int = 1
  kernel: int = 3
  activation: Callable | None = nn.relu

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    if math.prod(self.factors) != self.features:
      raise EffjaxError(f'IGCV2 {"/".join(self.path) or "(top)"}: the factors {self.factors} multiply to '
                        f'{math.prod(self.factors)}, wanted the {self.features} features: choose others')
    y = Conv(self.features, self.kernel, self.strides, x.shape[-1], name='depthwise', **self.same)(x)
    for i, factor in enumerate(self.factors, 1):
      groups, name = self.features // factor, f'pointwise{i}'
      if i < len(self.factors):
        y = Conv(self.features, 1, groups=groups, name=name, **self.same)(y)
      else:
        y = ConvBN(self.features, 1, groups=groups, activation=self.activation, name=name, **self.same)(y, train)
      y = channel_shuffle(y, groups)
    return y
