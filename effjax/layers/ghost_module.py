"""GhostNet's convolution: few features that are computed, and more that are cheaply derived from them."""
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.block import Block
from effjax.layers.conv_bn import ConvBN


class GhostModule(Block):
  """`y = [p, depthwise(p)]` with `p = primary(x)`: `[n, h, w, cin] -> [n, h, w, features]`.

  `features / ratio` channels are convolved; each of them gives `ratio - 1` more through filters of its own. That is
  nearly `ratio` times fewer multiply-accumulates than a convolution of all. Parameters under `primary` and `cheap`,
  both `ConvBN`s.

  Args:
    features: output channels.
    ratio: output channels per channel of `primary`.
    kernel: of `primary`.
    cheap: height and width of the depthwise kernels.
    activation: of both; others: as in `Block`.

  Raises:
    EffjaxError: features that ratio does not divide.

  Source: Han, Wang, Tian, Guo, Xu, Xu, "GhostNet", CVPR 2020, arXiv:1911.11907.

  >>> import jax
  >>> GhostModule(6, ratio=3).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 4)), False)[0].shape
  (1, 8, 8, 6)
  """
  features: int
  ratio: int = 2
  kernel: int = 1
  cheap: int = 3
  activation: Callable | None = nn.relu

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h w features']:
    if self.features % self.ratio:
      raise EffjaxError(f'GhostModule {"/".join(self.path) or "(top)"}: ratio {self.ratio} does not divide '
                        f'{self.features} features: choose multiples of it')
    active = dict(activation=self.activation, **self.same)
    p = ConvBN(self.features // self.ratio, self.kernel, name='primary', **active)(x, train)
    channels = p.shape[-1]
    y = ConvBN(channels * (self.ratio - 1), self.cheap, groups=channels, name='cheap', **active)(p, train)
    return jnp.concatenate([p, y], -1)
