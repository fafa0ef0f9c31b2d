"""SNAS: an operator choice sampled once a step from a concrete distribution."""
from effjax import relax, schedule
from effjax.reparam import Rule
from effjax.schedule import Schedule
from effjax.search.choice import choice_rule


def gumbel(*, temperature: float | Schedule) -> Rule:
  """The entries of a `Choice` leaf as one draw `p = softmax((a + G) / T)`, G standard Gumbel, per key.

  At every temperature operator i is the largest with probability `softmax(a)_i`; as T goes to 0, p goes to a one-hot.
  With `key=None` the one-hot of the largest logit. Gradient: autodiff's through the draw.

  Args:
    temperature: T > 0, a number or a schedule of the step (the paper lowers it towards 0).

  Slots: theta None; phi = {'logits': [n]}, a decision, zeros at the start; state = {'step'}.
  Facts: choice: soft, `softmax(a)`, whatever T is, so that a cost linear in the choice has its exact expectation;
    hard, the one-hot (the first of equals).

  Raises:
    EffjaxError: a leaf that is not a vector.

  Differs from the paper: one draw per step for the whole batch, the same on every device that gets the same key.

  Source: Xie, Zheng, Liu, Lin, "SNAS: Stochastic Neural Architecture Search", ICLR 2019, arXiv:1812.09926, survey [97].

  >>> import jax
  >>> rule = gumbel(temperature=0.5)
  >>> slots = rule.init(jax.random.key(0), jax.numpy.ones(3))
  >>> round(float(rule.apply(*slots, jax.random.key(1)).sum()), 5), rule.apply(*slots, None)
  (1.0, Array([1., 0., 0.], dtype=float32))
  """
  value = lambda step: schedule.value(temperature, step)
  return choice_rule('gumbel', lambda key, logits, step: relax.gumbel_softmax(key, logits, value(step)))
