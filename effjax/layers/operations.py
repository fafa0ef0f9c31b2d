"""The operations of searched cells by name: `OPERATIONS[name](features, strides, **same)` is a module."""
from collections.abc import Callable, Mapping
from types import MappingProxyType

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.asymmetric_conv import AsymmetricConv
from effjax.layers.avg_pool import avg_pool
from effjax.layers.block import Block
from effjax.layers.dil_conv import DilConv
from effjax.layers.factorized_reduce import FactorizedReduce
from effjax.layers.max_pool import max_pool
from effjax.layers.sep_conv import SepConv

NO_NEW_CHANNELS = frozenset({'avg_pool_3x3', 'max_pool_3x3', 'skip_connect'})  # give as many as they get, strides 1


class Pooling(Block):
  """Max or average over 3x3 windows; an average is over those entries of a window that are in x.

  `[n, h, w, c] -> [n, ceil(h / strides), ceil(w / strides), c]` unless padding is VALID.

  Args:
    pool: `max_pool` or `avg_pool`. strides: in both directions. others: as in `Block`.

  >>> import jax.numpy as jnp
  >>> Pooling(max_pool, 2).apply({}, jnp.ones((1, 8, 8, 4)), False).shape
  (1, 4, 4, 4)
  """
  pool: Callable
  strides: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, 'n h2 w2 c']:
    only = {'count_padding': False} if self.pool is avg_pool else {}
    return self.pool(x, 3, self.strides, self.pads(3), **only)


class Identity(Block):
  """`y = x`.

  >>> Identity().apply({}, 3., False)
  3.0
  """

  @nn.compact
  def __call__(self, x: Float[Array, '...'] | float, train: bool) -> Float[Array, '...'] | float:
    return x


class Zero(Block):
  """`y = 0 x` of every `strides`-th entry: the edge that is not there, in a search.

  >>> import jax.numpy as jnp
  >>> Zero(2).apply({}, jnp.ones((1, 5, 4, 3)), False).shape
  (1, 3, 2, 3)
  """
  strides: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, 'n h2 w2 c']:
    return 0 * x[:, ::self.strides, ::self.strides]


def _skip(features, strides, **same):
  return Identity(**same) if strides == 1 else FactorizedReduce(features, **same)


def _bottleneck(features, strides, **same):
  return AsymmetricConv(features, strides, 7, max(1, features // 4), **same)


# Names as in DARTS. Where NASNet's authors write `none` they mean `skip_connect`.
OPERATIONS: Mapping[str, Callable[..., Block]] = MappingProxyType({
    'none': lambda features, strides, **same: Zero(strides, **same),
    'skip_connect': _skip,
    'max_pool_3x3': lambda features, strides, **same: Pooling(max_pool, strides, **same),
    'avg_pool_3x3': lambda features, strides, **same: Pooling(avg_pool, strides, **same),
    'sep_conv_3x3': lambda features, strides, **same: SepConv(features, strides, 3, **same),
    'sep_conv_5x5': lambda features, strides, **same: SepConv(features, strides, 5, **same),
    'sep_conv_7x7': lambda features, strides, **same: SepConv(features, strides, 7, **same),
    'dil_conv_3x3': lambda features, strides, **same: DilConv(features, strides, 3, **same),
    'dil_conv_5x5': lambda features, strides, **same: DilConv(features, strides, 5, **same),
    'conv_7x1_1x7': lambda features, strides, **same: AsymmetricConv(features, strides, 7, **same),
    'bottleneck_7x1_1x7': _bottleneck})
