"""BinaryConnect: weights of -1 and 1, drawn or rounded from real ones that are kept between them."""
import jax
import jax.numpy as jnp
import optax

from effjax import ste
from effjax.errors import EffjaxError
from effjax.quantize.granularity import check_finite
from effjax.reparam import Fact, Rule, Slots


def binary_connect(*, stochastic: bool = False) -> Rule:
  """`y = 1` where `w >= 0`, else -1; or drawn, 1 with probability `clip((w + 1) / 2, 0, 1)`: `E[y] = clip(w, -1, 1)`.

  Gradient: `dy/dw = 1` everywhere. Put `clip_weights()` behind the optimizer, or weights drift to where neither form
  sees them move.

  Args:
    stochastic: draw y while training, anew for each key; deployed weights are signs in both forms. Signs of weights
      that are still near 0 are not what was trained: take a learning rate that brings them to -1 and 1.

  Slots: theta = w; no phi, no state.
  Facts: 1 bit, the scale 1. Runs on integers.

  Raises:
    EffjaxError: weights that are not finite.

  Differs from the paper: there the stochastic form is deployed with its real weights; no learning rates scaled by the
  initialisation, which is the optimizer's affair. The scale of a layer is left to the BatchNorm behind it, as there.

  Source: Courbariaux, Bengio, David, "BinaryConnect: Training Deep Neural Networks with binary weights during
  propagations", NeurIPS 2015, arXiv:1511.00363, survey [35].

  >>> rule = binary_connect()
  >>> rule.apply(*rule.init(jax.random.key(0), jnp.array([.3, -.2, 0.])), None)
  Array([ 1., -1.,  1.], dtype=float32)
  """
  def init(key, w):
    check_finite('binary_connect', w)
    return Slots(w, {}, {})

  def apply(w, phi, state, key):
    if stochastic and key is not None:
      up = jax.random.uniform(key, w.shape, jnp.float32) < (w.astype(jnp.float32) + 1) * .5
    else:
      up = w >= 0
    return ste.surrogate(jnp.where(up, jnp.ones_like(w), -jnp.ones_like(w)), w, jnp.ones_like(w))

  return Rule(init, apply, lambda slots, hard: Fact(bits=jnp.float32(1), scale=jnp.float32(1)))


def clip_weights(low: float = -1., high: float = 1.) -> optax.GradientTransformation:
  """The update that takes every weight no further than `low` and `high`. The last part of an `optax.chain`.

  For some leaves only: `optax.masked(clip_weights(), mask)`.

  Raises:
    EffjaxError: `low` is not below `high`; `update` without the parameters.

  Source: as `binary_connect`, section 2.4.

  >>> tx = optax.chain(optax.sgd(1.), clip_weights())
  >>> w = jnp.array([.5, -.9])
  >>> updates, _ = tx.update(jnp.array([.25, 3.]), tx.init(w), w)
  >>> optax.apply_updates(w, updates)
  Array([ 0.25, -1.  ], dtype=float32)
  """
  if not low < high:
    raise EffjaxError(f'clip_weights: low must be below high, got {low} and {high}')

  def update(updates, state, params=None):
    if params is None:
      raise EffjaxError('clip_weights: wants the weights, got none: call tx.update(gradients, state, params)')
    return jax.tree.map(lambda u, w: jnp.clip(w + u, low, high) - w, updates, params), state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
