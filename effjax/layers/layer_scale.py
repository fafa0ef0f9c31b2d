"""A factor per channel, small at first."""
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.layers.block import Block


class LayerScale(Block):
  """`y = x scale`, a parameter `scale` per channel: at the end of a residual branch, which it lets in little by little.

  Args:
    init: of all factors.
    others: as in `Block`.

  Source: Touvron, Cord, Sablayrolles, Synnaeve, Jegou, "Going deeper with image transformers", ICCV 2021,
  arXiv:2103.17239.

  >>> import jax
  >>> LayerScale(.5).init_with_output(jax.random.key(0), jnp.array([[2., 4.]]))[0]
  Array([[1., 2.]], dtype=float32)
  """
  init: float = 1e-6

  @nn.compact
  def __call__(self, x: Float[Array, '*n c']) -> Float[Array, '*n c']:
    scale = self.param('scale', nn.initializers.constant(self.init), (x.shape[-1],), jnp.float32)
    return x * scale.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
