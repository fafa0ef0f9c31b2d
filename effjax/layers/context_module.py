"""The context module: dilations that double, so that scores of a class see all of an image at full resolution."""
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.block import Block

DILATIONS = (1, 1, 2, 4, 8, 16, 1)
BASIC, LARGE = (1,) * 7, (2, 2, 4, 8, 16, 32, 32)  # widths of the 3x3 convolutions, times the channels of x


class ContextModule(Block):
  """Seven 3x3 convolutions of dilations 1, 1, 2, 4, 8, 16, 1 with ReLU, and a 1x1 convolution; all with biases.

  `[n, h, w, c] -> [n, h, w, c]`; an output sees 67x67 entries of x. Initialised by `identity`, but where `widths` are
  given: at first the module gives back whatever has no negative entries. The basic one has `64 c^2` weights. Parameters
  under `layer1` ... `layer8`.

  The paper pads x itself, by what the module sees, and its convolutions not at all (VALID); here each pads with zeros.

  Args:
    large: widths of 2, 2, 4, 8, 16, 32, 32 times c instead of c.
    noise: standard deviation of the entries of `identity` that are not of the identity.
    others: as in `Block`.

  Source: Yu, Koltun, "Multi-scale context aggregation by dilated convolutions", ICLR 2016, arXiv:1511.07122, survey
  [57].

  >>> x = jnp.arange(32.).reshape(1, 4, 4, 2)
  >>> bool(jnp.all(ContextModule().init_with_output(jax.random.key(0), x)[0] == x))
  True
  """
  large: bool = False
  noise: float = 0.

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h2 w2 c2']:
    c = x.shape[-1]
    init = nn.initializers.lecun_normal() if self.widths else identity(c, self.noise)
    for i, (width, dilation) in enumerate(zip(LARGE if self.large else BASIC, DILATIONS), 1):
      x = nn.relu(_Layer(width * c, 3, dilation, init, name=f'layer{i}', **self.same)(x))
    return _Layer(c, 1, 1, init, name='layer8', **self.same)(x)


def identity(channels: int, noise: float = 0.) -> Callable:
  """An initialiser of kernels `[kh, kw, cin, cout]`, with which a chain of layers from c to c channels is the identity.

  At the kernel's centre `c / cout` where `floor(a c / cin) = floor(b c / cout)`, for the input channel a and the output
  channel b; elsewhere normal numbers of deviation `noise`. Of `cin = cout = c` channels it is the identity matrix.

  Args:
    channels: c.
    noise: breaks the symmetry of equal channels, much smaller than `c / cout`; 0 for none.

  Raises:
    EffjaxError: of the initialiser: cin or cout is not a multiple of c.

  >>> identity(1)(jax.random.key(0), (1, 1, 1, 2)).ravel()
  Array([0.5, 0.5], dtype=float32)
  """
  def init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    cin, cout = shape[2:]
    if cin % channels or cout % channels:
      raise EffjaxError(f'identity: kernel {shape} has no multiples of {channels} channels: give widths that are')
    kernel = noise * jax.random.normal(key, shape, dtype) if noise else jnp.zeros(shape, dtype)
    equal = jnp.arange(cin)[:, None] * channels // cin == jnp.arange(cout)[None] * channels // cout
    centre = kernel[shape[0] // 2, shape[1] // 2]
    return kernel.at[shape[0] // 2, shape[1] // 2].set(jnp.where(equal, jnp.asarray(channels / cout, dtype), centre))

  return init


class _Layer(Block):
  """A convolution with a bias, whose kernel is initialised by `init`."""
  features: int
  kernel: int
  dilation: int
  kernel_init: Callable

  @nn.compact
  def __call__(self, x):
    padding = 'SAME' if self.padding == 'symmetric' else self.padding  # the same, as strides is 1 and the kernel odd
    return nn.Conv(self.features_of(self.features), (self.kernel,) * 2, padding=padding, kernel_init=self.kernel_init,
                   kernel_dilation=self.dilation, dtype=self.dtype, name='conv')(x)
