"""A dense layer of a network that may have been shrunk."""
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block


class Dense(Block):
  """`y = activation(x w + b)` over the last axis; parameters `kernel`, `bias`.

  Args:
    features: outputs.
    activation: a function, or None.

  >>> import jax, jax.numpy as jnp
  >>> Dense(4).init_with_output(jax.random.key(0), jnp.ones((1, 3)))[0].shape
  (1, 4)
  """
  features: int
  activation: Callable | None = None

  @nn.compact
  def __call__(self, x: Float[Array, '*n cin']) -> Float[Array, '*n features']:
    dense = nn.Dense(self.features_of(self.features), dtype=self.dtype)
    nn.share_scope(self, dense)
    x = dense(x)
    return x if self.activation is None else self.activation(x)
