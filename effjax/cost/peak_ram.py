"""Memory that the activations need."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.cost.expect import keep_of, present
from effjax.errors import EffjaxError
from effjax.graph.profile import Profile, entries
from effjax.reparam import Fact
from effjax.tree import Path


def peak_ram(profile: Profile, facts: dict[Path, Fact], *, bytes_per_entry: float | int = 1,
             smooth: float | int = 0) -> Float[Array, '']:
  """Bytes of the activations alive at the worst step: `max_t bytes_t`, `bytes_t = sum_{alive at t} P(buffer) entries`.

  Liveness over the traced order; a step that only changes values (bias, normalisation, activation function) takes
  the place of its input. Differentiable almost everywhere: the gradient is that of the worst step.

  `smooth = s > 0` gives the surrogate `(sum_t bytes_t^(1/s))^s`, the log-sum-exp of `log bytes_t` at temperature s: all
  steps that are within a factor of about `1 + s` of the worst have a gradient. It lies between the maximum and
  `steps^s` times it, and doubles when all sizes do.

  Args:
    profile, facts: as for `macs`.
    bytes_per_entry: 1 for int8 activations, 4 for float32.
    smooth: temperature, 0 (the exact value) to below 1; .05 is a start.

  Raises:
    EffjaxError: `smooth` is outside [0, 1).

  >>> from effjax.graph import profile
  >>> found = profile(lambda p, x: (x @ p['w']) @ p['w'].T, {'w': jnp.ones((3, 4))}, jnp.ones((1, 3)))
  >>> peak_ram(found, {}), peak_ram(found, {}, smooth=.5)  # 3 + 4 bytes, then 4 + 3
  (Array(7., dtype=float32), Array(9.899495, dtype=float32))
  """
  if not 0 <= smooth < 1:
    raise EffjaxError(f'peak_ram: smooth must be at least 0 and below 1, got {smooth}: 0 is exact, start with 0.05')
  if not profile.buffers:
    return jnp.zeros((), jnp.float32)
  sizes = present(profile.buffers, facts) * entries([b.axes for b in profile.buffers], keep_of(facts))
  steps = sorted({b.first for b in profile.buffers})
  alive = jnp.asarray([[b.first <= t <= b.last for b in profile.buffers] for t in steps], jnp.float32) @ sizes
  return bytes_per_entry * (alive.max() if smooth == 0 else _power_norm(alive, smooth))


def _power_norm(alive, s):
  """The surrogate; relative to the maximum, on which its value does not depend, so that no power overflows."""
  top = jax.lax.stop_gradient(jnp.maximum(alive.max(), jnp.float32(1e-30)))
  total = jnp.sum((alive / top) ** jnp.float32(1 / s))
  return top * jnp.maximum(total, jnp.float32(1e-30)) ** jnp.float32(s)
