"""Multiply-accumulates."""
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.cost.expect import keep_of, present
from effjax.graph.profile import Profile
from effjax.graph.profile import macs as count
from effjax.reparam import Fact
from effjax.tree import Path


def macs(profile: Profile, facts: dict[Path, Fact]) -> Float[Array, '']:
  """Expected multiply-accumulates: `sum_rows P(row) repeats prod_axes sum_entries keep`.

  `P(row)` is the product of the probabilities of the operators that the row belongs to. Differentiable in keep and
  choice; with hard facts it is the count of the shrunk network.

  Args:
    profile: of `effjax.graph.profile`.
    facts: of `Reparam.facts`; {} counts the network as it is.

  >>> from effjax.graph import profile
  >>> macs(profile(lambda p, x: x @ p['w'], {'w': jnp.ones((3, 4))}, jnp.ones((1, 3))), {})
  Array(12., dtype=float32)
  """
  return jnp.sum(present(profile.rows, facts) * count(profile.rows, keep_of(facts)))
