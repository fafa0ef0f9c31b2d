"""ReLU with a learnt slope for what is negative."""
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.layers.block import Block

SLOPE = 0.25  # at first, as in the paper


class PReLU(Block):
  """`y = max(x, 0) - a max(-x, 0)`: x where it is positive, else `a x`, with a slope a per channel.

  Shapes stay. Parameter `slope`, [c]; its derivative is `min(x, 0)`, summed. At 0 the derivative of y is 0, as that of
  ReLU. As written it needs no integer kernel of its own: two ReLUs, a factor per channel, and a difference.

  Args:
    others: as in `Block`.

  Source: He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015, arXiv:1502.01852.

  >>> import jax
  >>> PReLU().init_with_output(jax.random.key(0), jnp.array([[-4., 3.]]))[0]
  Array([[-1.,  3.]], dtype=float32)
  """

  @nn.compact
  def __call__(self, x: Float[Array, '*n c']) -> Float[Array, '*n c']:
    slope = self.param('slope', nn.initializers.constant(SLOPE), (x.shape[-1],))
    return nn.relu(x) - jnp.expand_dims(slope.astype(x.dtype), range(x.ndim - 1)) * nn.relu(-x)
