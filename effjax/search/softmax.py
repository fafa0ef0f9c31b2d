"""DARTS: an operator choice relaxed to a softmax."""
from effjax import relax, schedule
from effjax.reparam import Rule
from effjax.schedule import Schedule
from effjax.search.choice import choice_rule


def softmax(*, temperature: float | Schedule = 1.) -> Rule:
  """The entries of a `Choice` leaf as `p = softmax(a / T)`; with `key=None` the one-hot of the largest logit.

  Gradient: autodiff's. Nothing is random: the key only says that the choice is still soft.

  Args:
    temperature: T, a number or a schedule of the step.

  Slots: theta None; phi = {'logits': [n]}, a decision, zeros at the start; state = {'step'}.
  Facts: choice: soft, p; hard, the one-hot (the first of equals).

  Raises:
    EffjaxError: a leaf that is not a vector.

  Source: Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv:1806.09055, survey [68].

  >>> import jax
  >>> rule = softmax()
  >>> slots = rule.init(jax.random.key(0), jax.numpy.ones(2))
  >>> rule.apply(*slots, jax.random.key(1)), rule.apply(*slots, None)
  (Array([0.5, 0.5], dtype=float32), Array([1., 0.], dtype=float32))
  """
  soft = lambda logits, step: relax.softmax(logits, schedule.value(temperature, step))
  return choice_rule('softmax', lambda key, logits, step: soft(logits, step), soft)
