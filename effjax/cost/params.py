"""Parameters."""
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.cost.expect import keep_of, present
from effjax.graph.buffers import Buffer
from effjax.graph.profile import Profile, entries
from effjax.reparam import Fact
from effjax.tree import Path


def params(profile: Profile, facts: dict[Path, Fact]) -> Float[Array, '']:
  """Expected number of parameters: `sum_leaves P(leaf) prod_axes sum_entries keep`.

  Differentiable in keep and choice; with hard facts it is the count of the shrunk network. `P(leaf)` is that of the
  operators that every use of it is multiplied by. A leaf that weighs operators does not count once the facts choose
  one of them, nor does one that no output needs.

  Args:
    profile, facts: as for `macs`.

  >>> from effjax.graph import profile
  >>> given = {'w': jnp.ones((3, 4)), 'b': jnp.ones((1, 4))}
  >>> found = profile(lambda p, x: x @ p['w'] + p['b'], given, jnp.ones((1, 3)))
  >>> params(found, {})
  Array(16., dtype=float32)
  """
  chosen = {path for path, fact in facts.items() if fact.choice is not None and fact.bits is None}
  leaves = [Buffer(profile.leaves[path], guards, 0, 0) for path, guards in profile.guards.items() if path not in chosen]
  return jnp.sum(present(leaves, facts) * entries([leaf.axes for leaf in leaves], keep_of(facts)))
