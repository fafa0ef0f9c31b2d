"""The table of groups against networks that really lack one channel."""
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import graph
from effjax.cost.table import Group, table, table_text
from effjax.graph.profile import counts, size
from effjax.reparam import Fact

spec = importlib.util.spec_from_file_location(
    'networks', pathlib.Path(__file__).parent.parent / 'graph' / 'networks.py')
networks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(networks)
TABLE = networks.table()
BITS = jnp.float32(4)


def counted(fn, params, x):
  """MACs, bytes in four bits with 8 for each output channel, and parameters: whole numbers of a network as it is."""
  rows = graph.profile(fn, params, x).rows
  return (sum(counts(row).macs for row in rows),
          sum(counts(row).parameters / 2 + 8 * size(row.out_axes[-1:]) for row in rows if row.path is not None),
          sum(w.size for w in jax.tree.leaves(params)))


@pytest.mark.parametrize('name', ['Residual', 'Shuffled', 'Attention'])
@jax.numpy_rank_promotion('allow')  # Flax's own layers promote ranks and dtypes
@jax.numpy_dtype_promotion('standard')
def test_saved_is_what_the_shrunk_network_lacks(name):
  fn, params, x = TABLE[name]
  x = x[:1]
  channels, full = graph.channels(fn, params, x), np.array(counted(fn, params, x))
  rows = table(channels, graph.profile(fn, params, x), {path: Fact(bits=BITS) for path in channels.members})
  assert sorted(row.group for row in rows) == list(range(channels.groups.max() + 1))
  assert [row.channels for row in rows] == sorted(np.bincount(channels.groups), reverse=True)
  for row in rows:
    keep = np.arange(channels.size) != np.flatnonzero(channels.groups == row.group)[0]
    without = counted(*graph.shrink(fn, params, keep, x), x)
    np.testing.assert_allclose((row.macs, row.flash_bytes, row.parameters), full - without, rtol=1e-6)
    for path, i in row.axes:
      assert np.isin(np.flatnonzero(~keep), channels.members[path][i])


def test_a_channel_twice_in_one_product():
  """w w: n^3 multiply-accumulates with every channel on both axes of both factors; x w: one axis of two."""
  fn = lambda p, x: (x @ (p['w'] @ p['w'])) @ p['v']
  params, x = {'w': jnp.ones((5, 5)), 'v': jnp.ones((5, 2))}, jnp.ones((1, 5))
  channels, profile = graph.channels(lambda p: fn(p, p['x']), params | {'x': x}), graph.profile(
      lambda p: fn(p, p['x']), params | {'x': x})
  row, = table(channels, profile)
  n = np.array([5, 4])
  macs, parameters = n**3 + n**2 + 2 * n, n**2 + 2 * n + n
  np.testing.assert_allclose((row.channels, row.macs, row.parameters),
                             (5, macs[0] - macs[1], parameters[0] - parameters[1]), rtol=1e-6)


def test_large_counts_lose_nothing_to_rounding():
  """A channel is 4,100 of 134 million MACs, where neighbours in float32 are 8 apart."""
  fn = lambda p, x: sum(jax.nn.relu(x @ a) @ b for a, b in p)
  params = [(jax.ShapeDtypeStruct((4097, 4096), jnp.float32), jax.ShapeDtypeStruct((4096, 3), jnp.float32))] * 8
  x = jax.ShapeDtypeStruct((1, 4097), jnp.float32)
  rows = table(graph.channels(fn, params, x), graph.profile(fn, params, x))
  assert {(row.channels, row.macs, row.parameters) for row in rows} == {(4096, 4100., 4100.)} and len(rows) == 8


def test_the_largest_comes_first_and_the_dearest_of_equals():
  fn = lambda p, x: jax.nn.relu(jax.nn.relu(jax.nn.relu(x @ p[0]) @ p[1]) @ p[2]) @ p[3]
  params, x = [jnp.ones(s) for s in ((2, 3), (3, 7), (7, 3), (3, 9))], jnp.ones((1, 2))
  rows = table(graph.channels(fn, params, x), graph.profile(fn, params, x))
  assert [(row.group, row.channels, row.macs) for row in rows] == [(1, 7, 6.), (2, 3, 16.), (0, 3, 9.)]


def test_the_text_lines_up_and_names_three_axes():
  rows = [Group(0, 1200, tuple((f'layer/{i}', 3) for i in range(5)), 1e6, 2.5, 12.), Group(10, 1, (('a', 0),), 1., 2., 3.)]
  assert table_text(rows).splitlines() == [
      'group  channels  MACs each  bytes each  parameters each  touches',
      '    0     1,200  1,000,000         2.5               12  layer/0[3], layer/1[3], layer/2[3] and 2 more',
      '   10         1          1           2                3  a[0]']


def test_a_function_without_channels():
  fn, params, x = lambda p, x: x @ p, jnp.ones((2, 3)), jnp.ones((1, 2))
  assert table(graph.channels(fn, params, x), graph.profile(fn, params, x)) == []
  assert table_text([]) == 'group  channels  MACs each  bytes each  parameters each  touches'
