"""BatchNorm and activation."""
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from effjax.layers.block import Block

MOMENTUM = 0.9


class BatchNorm(Block):
  """`y = activation((x - mean) / sqrt(var + epsilon) * scale + bias)` over all axes but the last, in float32.

  Parameters `scale`, `bias`, which are 1 and 0 unless `affine`; statistics `mean`, `var` in `batch_stats`. `train`:
  those of the batch, and the running ones are updated (make `batch_stats` mutable); else the running ones. It is
  computed as `x a + b` with two numbers per channel: what is kept for the gradient is x alone, where Flax's form also
  writes and keeps `x - mean`.

  Source: Ioffe, Szegedy, "Batch Normalization", ICML 2015, arXiv:1502.03167.

  >>> import jax
  >>> BatchNorm().init_with_output(jax.random.key(0), jnp.ones((1, 2)), True)[0]
  Array([[0., 0.]], dtype=float32)
  """
  activation: Callable | None = None
  scale_init: Callable = nn.initializers.ones

  @nn.compact
  def __call__(self, x: Float[Array, '*n c'], train: bool) -> Float[Array, '*n c']:
    channels, dtype, x = x.shape[-1:], x.dtype, x.astype(jnp.float32)
    mean, var = self._statistics(x, train)
    factor, bias = lax.rsqrt(var + self.epsilon), 0.
    if self.affine:
      factor *= self.param('scale', self.scale_init, channels)
      bias = self.param('bias', nn.initializers.zeros, channels)
    offset = bias - mean * factor
    # Broadcast to the whole shape: the gradients of both are then plain sums, which XLA's CPU backend runs fast.
    y = (x * jnp.broadcast_to(factor, x.shape) + jnp.broadcast_to(offset, x.shape)).astype(dtype)
    return y if self.activation is None else self.activation(y)

  def _statistics(self, x, train):
    """Mean and variance to normalize by; of a batch, they also go into the running ones."""
    means = self.variable('batch_stats', 'mean', jnp.zeros, x.shape[-1:])
    variances = self.variable('batch_stats', 'var', jnp.ones, x.shape[-1:])
    if not train:
      return means.value, variances.value
    axes = tuple(range(x.ndim - 1))
    mean, square = x.mean(axes), jnp.square(x).mean(axes)
    if self.axis_name is not None and not self.is_initializing():
      mean, square = lax.pmean((mean, square), self.axis_name)
    var = jnp.maximum(0, square - jnp.square(mean))
    if not self.is_initializing():
      means.value = MOMENTUM * means.value + (1 - MOMENTUM) * mean
      variances.value = MOMENTUM * variances.value + (1 - MOMENTUM) * var
    return mean, var
