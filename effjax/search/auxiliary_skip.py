"""DARTS-: a skip beside every choice, so that the choice's own skip is not needed to train the supernet."""
import jax.numpy as jnp

from effjax import schedule
from effjax.errors import EffjaxError
from effjax.reparam import Fact, Rule, Slots


def auxiliary_skip(beta: float | schedule.Schedule) -> Rule:
  """The scalar leaf `auxiliary_skip` of a supernet, `y = mixed(x) + beta x` on each edge: beta at this step.

  With `key=None` it is 0: what is deployed has no auxiliary skip. Gradient: none, nothing in it trains.

  Args:
    beta: a number, or a schedule such as `optax.linear_schedule(1., 0., steps)`, the paper's.

  Slots: theta None; phi = {}; state = {'step', 'zero'}: 0 in the dtype of the leaf.
  Facts: none.

  Raises:
    EffjaxError: a leaf that is not a scalar.

  Source: Chu, Wang, Zhang, Lu, Wei, Yan 2021, "DARTS-: Robustly stepping out of performance collapse without
  indicators", arXiv:2009.01027.

  >>> import jax
  >>> rule = auxiliary_skip(lambda step: 1. - step / 10)
  >>> slots = rule.init(jax.random.key(0), jnp.ones(()))
  >>> later = slots._replace(state=rule.update(slots, None))
  >>> [float(rule.apply(*slots, jax.random.key(1))), round(float(rule.apply(*later, jax.random.key(1))), 3),
  ...  float(rule.apply(*later, None))]
  [1.0, 0.9, 0.0]
  """
  def init(key, w):
    if jnp.ndim(w):
      raise EffjaxError(f'auxiliary_skip: wants the scalar leaf of a supernet, got an array of shape {jnp.shape(w)}: '
                        "narrow the pattern to 'auxiliary_skip'")
    return Slots(None, {}, {'step': schedule.start(), 'zero': jnp.zeros((), w.dtype)})

  def apply(theta, phi, state, key):
    zero = state['zero']
    return zero if key is None else schedule.value(beta, state['step']).astype(zero.dtype)

  return Rule(init, apply, lambda slots, hard: Fact(),
              update=lambda slots, gradient: {**slots.state, 'step': schedule.advance(slots.state['step'])})
