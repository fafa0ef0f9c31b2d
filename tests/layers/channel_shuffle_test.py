"""The shuffle is the permutation of the paper."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import channel_shuffle


@pytest.mark.parametrize(('channels', 'groups'), [(6, 2), (12, 3), (12, 4), (8, 8), (5, 1)])
def test_channel_i_of_group_g_comes_to_place_i_g(channels, groups):
  x = jax.random.normal(jax.random.key(0), (2, 3, channels))
  y, each = channel_shuffle(x, groups), channels // groups
  for g in range(groups):
    for i in range(each):
      np.testing.assert_array_equal(y[..., i * groups + g], x[..., g * each + i])
  np.testing.assert_array_equal(channel_shuffle(y, each), x)


def test_two_grouped_layers_reach_every_input_only_with_the_shuffle():
  block = jnp.kron(jnp.eye(3), jnp.ones((3, 3)))  # 9 channels, 3 groups
  assert jnp.all(channel_shuffle(block, 3) @ block == 1)
  assert jnp.sum(block @ block > 0) == 27


def test_groups_that_do_not_divide():
  with pytest.raises(EffjaxError, match='channel_shuffle: 4 groups do not divide 6 channels: choose another width'):
    channel_shuffle(jnp.ones(6), 4)
