"""Bytes of weights in the file."""
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.cost.expect import bits_of, keep_of, present
from effjax.graph.profile import Profile, Row, entries, size
from effjax.reparam import Fact
from effjax.tree import Path

CONTAINERS = (4, 8, 32)  # bits that the target's kernels read; a width between is stored in the next one
PER_CHANNEL = 4 + 4  # int32 bias and float32 scale of one output channel


def container(bits: Float[Array, '*k']) -> Float[Array, '*k']:
  """The narrowest container of at least `bits` bits.

  >>> container(jnp.array([2., 4., 5., 8.]))
  Array([4., 4., 8., 8.], dtype=float32)
  """
  stored = jnp.asarray(CONTAINERS, jnp.float32)
  return stored[jnp.minimum(jnp.searchsorted(stored, bits), len(CONTAINERS) - 1)]


def flash_bytes(profile: Profile, facts: dict[Path, Fact]) -> Float[Array, '']:
  """Expected bytes: `sum_rows P(row) (codes E[container bits] / 8 + 8 output channels)`: codes, biases and scales.

  BatchNorm folds into scale and bias. A weight that two rows share is counted once, and a stack of weights with all of
  its slices, whether a `scan` or a Python loop goes through them. `file_bytes` adds what the format says of them.

  Args:
    profile, facts: as for `macs`.

  >>> from effjax.graph import profile
  >>> found = profile(lambda p, x: x @ p['w'], {'w': jnp.ones((3, 4))}, jnp.ones((1, 3)))
  >>> flash_bytes(found, {'w': Fact(bits=jnp.float32(4))})
  Array(38., dtype=float32)
  """
  keep = keep_of(facts)
  rows = distinct(profile)
  codes = entries([row.weight_axes for row in rows], keep) * bits_of(rows, facts, container) / 8
  channels = entries([row.out_axes[-1:] for row in rows], keep)
  stored = jnp.asarray([row.stored for row in rows], jnp.float32)
  return jnp.sum(present(rows, facts) * stored * (codes + PER_CHANNEL * channels))


def distinct(profile: Profile) -> list[Row]:
  """Rows with weights of their own: of each leaf the first, and further ones while they can be other slices of it."""
  left = {path: size(axes) for path, axes in profile.leaves.items()}
  rows: dict[Path, list[Row]] = {}
  for row in profile.rows:
    if row.path is None:
      continue
    own = row.stored * size(row.weight_axes)
    if row.path not in rows or own <= left[row.path]:
      rows.setdefault(row.path, []).append(row)
      left[row.path] -= own
  return [row for mine in rows.values() for row in mine]
