"""Bit operations."""
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.cost.expect import bits_of, keep_of, present
from effjax.graph.profile import Profile, macs
from effjax.reparam import Fact
from effjax.tree import Path


def bitops(profile: Profile, facts: dict[Path, Fact], *, activation_bits: float | int = 8) -> Float[Array, '']:
  """Expected bit operations: `sum_rows P(row) macs(row) E[weight bits] activation_bits`.

  The measure of mixed-precision search (Baskin et al. 2021, arXiv:1804.10969: BOPs without the accumulator's term).

  Args:
    profile, facts: as for `macs`.
    activation_bits: of every activation; 32 for a float network.

  >>> from effjax.graph import profile
  >>> found = profile(lambda p, x: x @ p['w'], {'w': jnp.ones((3, 4))}, jnp.ones((1, 3)))
  >>> bitops(found, {'w': Fact(bits=jnp.float32(4))})
  Array(384., dtype=float32)
  """
  rows = profile.rows
  expected = present(rows, facts) * macs(rows, keep_of(facts)) * bits_of(rows, facts)
  return jnp.sum(expected) * jnp.float32(activation_bits)
