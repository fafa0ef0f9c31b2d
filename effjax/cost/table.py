"""What one channel of each group costs: where pruning pays."""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax.cost.flash_bytes import flash_bytes
from effjax.cost.macs import macs
from effjax.cost.params import params
from effjax.graph.channels import Channels
from effjax.graph.profile import Profile
from effjax.reparam import CHANNELS, Fact
from effjax.tree import Path

NODES = (.5 - .75**.5 / 3, .5 + .75**.5 / 3)  # of Gauss and Legendre on [0, 1]: (1 -+ 1 / sqrt 3) / 2
SHOWN = 3  # axes of a group that the text names


class Group(NamedTuple):
  """One group of channels.

  group: its number in `Channels.groups`. channels: how many. axes: (path, axis) of the parameters that they touch.
  macs, flash_bytes, parameters: what one of them costs: that of the whole network less that without it.
  """
  group: int
  channels: int
  axes: tuple[tuple[Path, int], ...]
  macs: float
  flash_bytes: float
  parameters: float


def table(channels: Channels, profile: Profile, facts: dict[Path, Fact] | None = None) -> list[Group]:
  """One row per group of channels, the largest first: `cost(all) - cost(all but one)` for one channel of the group.

  The difference of two large numbers is not taken: it is the mean of the cost's derivative along the way from one
  to the other, at two nodes, which is exact for a channel that occurs up to four times in one product (attention
  scores, squares).

  Args:
    channels, profile: of the same function.
    facts: other than keep, e.g. bits; {} counts the network as it is.

  >>> from effjax import graph
  >>> fn = lambda p, x: jax.nn.relu(x @ p['a']) @ p['b']
  >>> inputs = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}, jnp.ones((1, 3))
  >>> table(graph.channels(fn, *inputs), graph.profile(fn, *inputs))
  [Group(group=0, channels=4, axes=(('a', 1), ('b', 0)), macs=5.0, flash_bytes=28.0, parameters=5.0)]
  """
  if not channels.size:
    return []
  sizes, first = np.bincount(channels.groups), np.unique(channels.groups, return_index=True)[1]
  saved = _saved(lambda keep: [cost(profile, (facts or {}) | {CHANNELS: Fact(keep=keep)})
                               for cost in (macs, flash_bytes, params)], channels.size, first)
  rows = [Group(g, int(n), _axes(channels, c), *map(float, costs))
          for g, (n, c, *costs) in enumerate(zip(sizes, first, *saved))]
  return sorted(rows, key=lambda row: (-row.channels, -row.macs))


def table_text(rows: Sequence[Group]) -> str:
  """The rows as a table of plain text.

  >>> print(table_text([Group(0, 4, (('a', 1), ('b', 0)), 5., 28., 5.)]))
  group  channels  MACs each  bytes each  parameters each  touches
      0         4          5          28                5  a[1], b[0]
  """
  head = ('group', 'channels', 'MACs each', 'bytes each', 'parameters each', 'touches')
  number = lambda value: f'{value:,.0f}' if float(value).is_integer() else f'{value:,.1f}'
  body = [(*map(number, (r.group, r.channels, r.macs, r.flash_bytes, r.parameters)), _touches(r.axes)) for r in rows]
  widths = [max(map(len, column)) for column in zip(head, *body)]
  lines = ('  '.join([*(cell.rjust(w) for cell, w in zip(row, widths[:-1])), row[-1]]) for row in (head, *body))
  return '\n'.join(lines)


def _saved(costs: Callable, n: int, positions: np.ndarray) -> list[Float[Array, ' groups']]:
  """What each of the costs of n channels falls by without the one at each position."""
  def without(position):
    one = jnp.zeros(n, jnp.float32).at[position].set(1.)
    slopes = [jax.jvp(costs, (1 - jnp.float32(t) * one,), (one,))[1] for t in NODES]
    return jax.tree.map(lambda *each: sum(each) / len(NODES), *slopes)
  return jax.jit(lambda positions: jax.lax.map(without, positions))(jnp.asarray(positions))


def _axes(channels, channel):
  return tuple((path, i) for path, axes in channels.members.items() for i, axis in enumerate(axes)
               if (axis == channel).any())


def _touches(axes):
  named = ', '.join(f'{path}[{i}]' for path, i in axes[:SHOWN])
  return named + (f' and {len(axes) - SHOWN} more' if len(axes) > SHOWN else '')
