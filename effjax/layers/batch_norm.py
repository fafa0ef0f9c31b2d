"""BatchNorm and activation."""
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.layers.block import Block

MOMENTUM = 0.9


class BatchNorm(Block):
  """`y = activation((x - mean) / sqrt(var + epsilon) * scale + bias)` over all axes but the last, in float32.

  Parameters `scale`, `bias`; statistics `mean`, `var` in `batch_stats`. `train`: those of the batch, and the running
  ones are updated (make `batch_stats` mutable); else the running ones.

  Source: Ioffe, Szegedy, "Batch Normalization", ICML 2015, arXiv:1502.03167.

  >>> import jax
  >>> BatchNorm().init_with_output(jax.random.key(0), jnp.ones((1, 2)), True)[0]
  Array([[0., 0.]], dtype=float32)
  """
  activation: Callable | None = None
  scale_init: Callable = nn.initializers.ones

  @nn.compact
  def __call__(self, x: Float[Array, '*n c'], train: bool) -> Float[Array, '*n c']:
    # The inner module shares this one's scope, so that there is no further level of names.
    bn = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, epsilon=self.epsilon, axis_name=self.axis_name,
                      scale_init=self.scale_init)
    nn.share_scope(self, bn)
    x = bn(x.astype(jnp.float32)).astype(x.dtype)
    return x if self.activation is None else self.activation(x)
