"""A space of two choices, written as a user writes one; it compiles in seconds."""
import flax.linen as nn
import jax.numpy as jnp

from effjax import layers, search


class Tiny(nn.Module):
  """`--space tiny:Tiny`, with this folder on the path."""
  num_classes: int
  features: int = 4
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x, train):
    conv = lambda kernel: layers.ConvBN(self.features, kernel, axis_name=self.axis_name, name=f'k{kernel}', parent=None)
    x = layers.ConvBN(self.features, axis_name=self.axis_name, name='stem')(x, train)
    for block in ('first', 'second'):
      x = search.Choice((conv(1), conv(3), search.Skip(name='skip', parent=None)), name=block)(x, train)
    return nn.Dense(self.num_classes)(x.mean((1, 2)))


class Empty(Tiny):
  """A choice without candidates."""

  @nn.compact
  def __call__(self, x, train):
    return search.Choice((), name='first')(jnp.mean(x, (1, 2)), train)


class Uneven(Tiny):
  """Candidates of different shapes."""

  @nn.compact
  def __call__(self, x, train):
    narrow, wide = layers.ConvBN(2, name='narrow', parent=None), layers.ConvBN(3, name='wide', parent=None)
    return search.Choice((narrow, wide), name='first')(x, train).mean((1, 2))
