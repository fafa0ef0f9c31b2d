"""One-shot models: all operators at once, some dropped, so that the rest learn to do without them."""
import jax
import jax.numpy as jnp

from effjax import schedule
from effjax.errors import EffjaxError
from effjax.reparam import Rule
from effjax.schedule import Schedule
from effjax.search.choice import choice_rule


def path_dropout(*, rate: float | Schedule) -> Rule:
  """The entries of a `Choice` leaf as a mask, per key: each of its k operators is dropped with probability `r^(1/k)`.

  Then all k are dropped together with probability r, whatever k is. What stays has weight 1: nothing is rescaled.
  A search then sets the logits in the state, of which `key=None` gives the one-hot of the largest. Gradient: none.

  Args:
    rate: r in [0, 1], a number or a schedule of the step (the paper raises it linearly from 0 until training ends).

  Slots: theta None; phi = {}; state = {'logits': [n], 'step'}, zeros at the start.
  Facts: choice: soft, the probability `1 - r^(1/k)` that an operator runs; hard, the one-hot (the first of equals).

  Raises:
    EffjaxError: a rate that is no probability; a leaf that is not a vector.

  Differs from the paper: one operator is deployed, where the paper's spaces may keep several; ghost batch
  normalization and the L2 penalty on what ran are the training loop's.

  Source: Bender, Kindermans, Zoph, Vasudevan, Le, "Understanding and Simplifying One-Shot Architecture Search",
  ICML 2018, survey [82].

  >>> rule = path_dropout(rate=0.25)
  >>> rule.facts(rule.init(jax.random.key(0), jnp.ones(2)), False).choice
  Array([0.5, 0.5], dtype=float32)
  """
  if not callable(rate) and not 0. <= rate <= 1.:
    raise EffjaxError(f'path_dropout: rate must be in [0, 1], got {rate}: it is the probability that all paths go')
  kept = lambda n, step: 1. - schedule.value(rate, step)**(1 / n)

  def draw(key, logits, step):
    return jax.random.bernoulli(key, kept(logits.size, step), logits.shape).astype(logits.dtype)

  def expected(logits, step):
    return jnp.full_like(logits, kept(logits.size, step))

  return choice_rule('path_dropout', draw, expected, trained=False)
