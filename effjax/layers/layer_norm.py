"""LayerNorm over channels, of which some may be gone."""
import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from effjax.layers.block import Block


class LayerNorm(Block):
  """`y = (x - mean) / sqrt(var + epsilon) * scale + bias`, mean and variance over the last axis, in float32.

  `mean = sum_c x / features`, `var = sum_c x^2 / features - mean^2`: a channel that was removed counts as the zero that
  it was when it was masked, so that the channels that stay are what they were. Parameters `scale`, `bias`.

  Args:
    features: nominal channels of x.
    others: as in `Block`; ConvNeXt's epsilon is 1e-6.

  Source: Ba, Kiros, Hinton, "Layer normalization", 2016, arXiv:1607.06450.

  >>> import jax
  >>> LayerNorm(2).init_with_output(jax.random.key(0), jnp.array([[1., 3.]]))[0].round(2)
  Array([[-1.,  1.]], dtype=float32)
  """
  features: int

  @nn.compact
  def __call__(self, x: Float[Array, '*n c']) -> Float[Array, '*n c']:
    shape = (1,) * (x.ndim - 1) + (-1,)
    scale = self.param('scale', nn.initializers.ones, (x.shape[-1],), jnp.float32).reshape(shape)
    bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],), jnp.float32).reshape(shape)
    y = x.astype(jnp.float32)
    mean, square = self._mean(y), self._mean(jnp.square(y))
    var = jnp.maximum(square - jnp.square(mean), 0.)
    return ((y - mean) * lax.rsqrt(var + self.epsilon) * scale + bias).astype(x.dtype)

  def _mean(self, y):
    """With zeros for what is gone: integer kernels know a mean, and no sum that is divided by another number."""
    gone = self.features - y.shape[-1]
    y = jnp.pad(y, ((0, 0),) * (y.ndim - 1) + ((0, gone),)) if gone > 0 else y
    return y.mean(-1, keepdims=True)
