"""The permutation that lets grouped convolutions mix."""
from jaxtyping import Array, Float

from effjax.errors import EffjaxError


def channel_shuffle(x: Float[Array, '*n c'], groups: int) -> Float[Array, '*n c']:
  """Channels seen as `[groups, c / groups]`, transposed: each run of `groups` channels then has one of each.

  A permutation: its gradient is the inverse, which is `channel_shuffle(x, c / groups)`.

  Raises:
    EffjaxError: groups do not divide the channels.

  Source: Zhang, Zhou, Lin, Sun, "ShuffleNet", CVPR 2018, arXiv:1707.01083, survey [9].

  >>> import jax.numpy as jnp
  >>> channel_shuffle(jnp.arange(6.), 2)
  Array([0., 3., 1., 4., 2., 5.], dtype=float32)
  """
  if x.shape[-1] % groups:
    raise EffjaxError(f'channel_shuffle: {groups} groups do not divide {x.shape[-1]} channels: choose another width')
  grouped = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
  return grouped.swapaxes(-1, -2).reshape(x.shape)
