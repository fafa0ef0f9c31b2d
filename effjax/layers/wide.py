"""What 16-bit arrays are computed in."""
import jax.numpy as jnp
from jaxtyping import Array, Float


def wide(x: Float[Array, '...']) -> Float[Array, '...']:
  """In float32 at least.

  >>> wide(jnp.ones(1, jnp.bfloat16)).dtype
  dtype('float32')
  """
  return x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)
