"""Memory that the activations need."""
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.cost.expect import keep_of, present
from effjax.graph.profile import Profile, entries
from effjax.reparam import Fact
from effjax.tree import Path


def peak_ram(profile: Profile, facts: dict[Path, Fact], *, bytes_per_entry: float | int = 1) -> Float[Array, '']:
  """Bytes of the activations alive at the worst step: `max_t sum_{buffers alive at t} P(buffer) entries`.

  Liveness over the traced order; a step that only changes values (bias, normalisation, activation function) takes
  the place of its input. Differentiable almost everywhere: the gradient is that of the worst step.

  Args:
    profile, facts: as for `macs`.
    bytes_per_entry: 1 for int8 activations, 4 for float32.

  >>> from effjax.graph import profile
  >>> peak_ram(profile(lambda p, x: x @ p['w'], {'w': jnp.ones((3, 4))}, jnp.ones((1, 3))), {})
  Array(7., dtype=float32)
  """
  if not profile.buffers:
    return jnp.zeros((), jnp.float32)
  sizes = present(profile.buffers, facts) * entries([b.axes for b in profile.buffers], keep_of(facts))
  steps = sorted({b.first for b in profile.buffers})
  alive = jnp.asarray([[b.first <= t <= b.last for b in profile.buffers] for t in steps], jnp.float32)
  return bytes_per_entry * (alive @ sizes).max()
