"""L0 regularization: gates that are exactly 0 with a probability that a gradient can move."""
import math

import jax.numpy as jnp

from effjax import relax
from effjax.errors import EffjaxError
from effjax.reparam import Fact, Rule, Slots


def hard_concrete(*, temperature: float = 2 / 3, low: float = -0.1, high: float = 1.1,
                  initial_keep: float = 0.9) -> Rule:
  """A vector of gates `z` in [0, 1], one draw per step: `z = clip(s (high - low) + low, 0, 1)`, `s` binary concrete.

  `s = sigmoid((log u - log(1 - u) + a) / temperature)`, u uniform. With `key=None` a gate is 1 where the paper's
  test-time gate `clip(sigmoid(a) (high - low) + low, 0, 1)` is above 1/2 (for the default stretch: `a > 0`), else 0.
  Gradient: autodiff's, zero where the clip saturates.

  For a vector of gates that multiplies something else, as `effjax.over(channels, hard_concrete())` makes it; the
  values of the vector that it replaces are not used.

  Args:
    temperature: of the binary concrete distribution.
    low, high: the stretch: the further outside [0, 1], the more mass lies at 0 and 1.
    initial_keep: P(z > 0) of every gate at the start, in (0, 1).

  Slots: theta None; phi = {'log_alpha': [n]}, a decision; no state.
  Facts: keep: soft, `P(z > 0) = sigmoid(a - temperature log(-low / high))`; hard, the 0 or 1 of `key=None`.

  Raises:
    EffjaxError: hyper-parameters out of range; an array that is not a vector.

  Differs from the paper: deployed gates are 0 or 1, because a fraction would multiply integer codes off their grid;
  every gate starts at the same `a`.

  Source: Louizos, Welling, Kingma, "Learning Sparse Neural Networks through L0 Regularization", ICLR 2018,
  arXiv:1712.01312.

  >>> import jax
  >>> rule = hard_concrete(initial_keep=0.9)
  >>> slots = rule.init(jax.random.key(0), jnp.ones(3))
  >>> rule.apply(*slots, None), rule.facts(slots, False).keep.round(2)
  (Array([1., 1., 1.], dtype=float32), Array([0.9, 0.9, 0.9], dtype=float32))
  """
  relax.hard_concrete_open(jnp.zeros(()), temperature=temperature, low=low, high=high)
  if not 0. < initial_keep < 1.:
    raise EffjaxError(f'hard_concrete: initial_keep is a probability strictly between 0 and 1, got {initial_keep}')
  stretch = dict(temperature=temperature, low=low, high=high)
  start = math.log(initial_keep / (1. - initial_keep)) + temperature * math.log(-low / high)

  def init(key, w):
    if w.ndim != 1:
      raise EffjaxError(f'hard_concrete: wants a vector of gates, got an array of shape {w.shape}: '
                        'gate channels with effjax.over(channels, hard_concrete())')
    return Slots(None, {'log_alpha': jnp.full(w.shape, start, w.dtype)}, {})

  def deployed(phi):
    return (relax.hard_concrete(None, phi['log_alpha'], **stretch) > 0.5).astype(phi['log_alpha'].dtype)

  def apply(theta, phi, state, key):
    return deployed(phi) if key is None else relax.hard_concrete(key, phi['log_alpha'], **stretch)

  def facts(slots, hard):
    soft = relax.hard_concrete_open(slots.phi['log_alpha'], **stretch)
    return Fact(keep=deployed(slots.phi) if hard else soft)

  return Rule(init, apply, facts, decisions=frozenset({'log_alpha'}))
