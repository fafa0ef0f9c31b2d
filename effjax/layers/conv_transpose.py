"""A transposed convolution, the usual learnt upsampling."""
import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block


class ConvTranspose(Block):
  """The transpose of a convolution with strides, no bias: `[n, h, w, cin] -> [n, h strides, w strides, features]`.

  Each entry of x adds its kernel, of channels `[kernel, kernel, cin, features]` and turned by 180 degrees, to the
  `kernel x kernel` outputs around its place; what goes beyond the image is cut off, half of it on either side. With
  `kernel == strides` these do not overlap. Parameter `conv/kernel`.

  Args:
    features: output channels.
    kernel: height and width of the kernel.
    strides: in both directions.
    others: as in `Block`; there is one padding, whatever `padding` says.

  Source: Zeiler, Krishnan, Taylor, Fergus, "Deconvolutional networks", CVPR 2010; Long, Shelhamer, Darrell, "Fully
  convolutional networks", CVPR 2015, arXiv:1411.4038.

  >>> import jax, jax.numpy as jnp
  >>> ConvTranspose(4).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)))[0].shape
  (1, 16, 16, 4)
  """
  features: int
  kernel: int = 2
  strides: int = 2

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin']) -> Float[Array, 'n h2 w2 features']:
    return nn.ConvTranspose(self.features_of(self.features), (self.kernel,) * 2, (self.strides,) * 2, 'SAME',
                            use_bias=False, dtype=self.dtype, name='conv')(x)
