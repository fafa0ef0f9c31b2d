"""GDAS: one operator drawn a step, with the gradient of the concrete draw."""
from effjax import relax, schedule
from effjax.reparam import Rule
from effjax.schedule import Schedule
from effjax.search.choice import choice_rule


def straight_through_gumbel(*, temperature: float | Schedule) -> Rule:
  """The entries of a `Choice` leaf as the one-hot of the largest entry of `z = softmax((a + G) / T)`, per key.

  Operator i is drawn with probability `softmax(a)_i` at every temperature. With `key=None` the one-hot of the largest
  logit. Gradient: that of z, `dp_i / da_j = z_i (delta_ij - z_j) / T`. It is biased; for a loss that is linear in each
  one-hot the bias goes to 0 with T, while the variance grows.

  Args:
    temperature: T > 0, a number or a schedule of the step (the paper lowers it linearly from 10 to 0.1).

  Slots: theta None; phi = {'logits': [n]}, a decision, zeros at the start; state = {'step'}.
  Facts: choice: soft, `softmax(a)`; hard, the one-hot (the first of equals).

  Raises:
    EffjaxError: a leaf that is not a vector.

  Differs from the paper: all operators run, so the gradient has a term for each, unless the choice has `paths=1`: then
  the drawn operator runs alone, and has its term only, as in the paper.

  Source: Dong, Yang, "Searching for A Robust Neural Architecture in Four GPU Hours", CVPR 2019, arXiv:1910.04465.

  >>> import jax
  >>> rule = straight_through_gumbel(temperature=1.)
  >>> slots = rule.init(jax.random.key(0), jax.numpy.ones(3))
  >>> sorted(rule.apply(*slots, jax.random.key(1)).tolist()), rule.apply(*slots, None)
  ([0.0, 0.0, 1.0], Array([1., 0., 0.], dtype=float32))
  """
  def draw(key, logits, step):
    return relax.straight_through(relax.gumbel_softmax(key, logits, schedule.value(temperature, step)))

  return choice_rule('straight_through_gumbel', draw)
