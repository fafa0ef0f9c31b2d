"""The separable convolution of searched cells: depthwise and pointwise, twice."""
import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block
from effjax.layers.conv import Conv
from effjax.layers.conv_bn import ConvBN


class SepConv(Block):
  """`y = g(g(x, strides), 1)`, `g(x, s) = BatchNorm(pointwise(depthwise(relu(x), s)))`: ReLU first, applied twice.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]` unless padding is VALID. Parameters under
  `depthwise1`, `pointwise1`, `depthwise2`, `pointwise2`; BatchNorm stands behind the pointwise ones alone.

  Args:
    features: output channels. strides: of the first depthwise convolution.
    kernel: height and width of both depthwise kernels.
    others: as in `Block`.

  Source: Zoph, Vasudevan, Shlens, Le, "Learning transferable architectures", CVPR 2018, arXiv:1707.07012, survey [6].

  >>> import jax, jax.numpy as jnp
  >>> SepConv(4, 2, 5).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 4, 4, 4)
  """
  features: int
  strides: int = 1
  kernel: int = 3

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    for i, strides in enumerate((self.strides, 1), 1):
      channels = x.shape[-1]
      x = Conv(channels, self.kernel, strides, groups=channels, name=f'depthwise{i}', **self.same)(nn.relu(x))
      x = ConvBN(self.features, 1, activation=None, name=f'pointwise{i}', **self.same)(x, train)
    return x
