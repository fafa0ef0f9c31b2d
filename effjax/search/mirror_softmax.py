"""GAEA as a rule: a softmax whose logits take the gradient by the probabilities as it is."""
import jax.numpy as jnp

from effjax import relax, ste
from effjax.reparam import Rule
from effjax.search.choice import choice_rule


def mirror_softmax() -> Rule:
  """The entries of a `Choice` leaf as `p = softmax(a)`; with `key=None` the one-hot of the largest logit.

  Gradient: `dL/da = dL/dp`, without the softmax's own derivative. Then `a <- a - lr dL/da`, which is `optax.sgd(lr)`,
  is `p <- p exp(-lr dL/dp) / Z`, the exponentiated gradient of `exponentiated_gradient`; and whatever the optimizer, p
  stays on the simplex. Nothing is random: the key only says that the choice is open.

  Slots: theta None; phi = {'logits': [n]}, a decision, zeros at the start; state = {'step'}.
  Facts: choice: soft, p with the same gradient, so that a cost's gradient is one by p too; hard, the one-hot (the
    first of equals).

  Raises:
    EffjaxError: a leaf that is not a vector.

  Differs from the paper: it stores p, of which these logits are the logarithms up to a constant.

  Source: Li, Khodak, Balcan, Talwalkar, "Geometry-Aware Gradient Algorithms for Neural Architecture Search",
  ICLR 2021, arXiv:2004.07802.

  >>> import jax
  >>> rule = mirror_softmax()
  >>> slots = rule.init(jax.random.key(0), jnp.ones(2))
  >>> jax.value_and_grad(lambda phi: rule.apply(None, phi, slots.state, jax.random.key(1))[0])(slots.phi)
  (Array(0.5, dtype=float32), {'logits': Array([1., 0.], dtype=float32)})
  """
  def soft(logits, step):
    return ste.surrogate(relax.softmax(logits), logits, jnp.ones_like(logits))

  return choice_rule('mirror_softmax', lambda key, logits, step: soft(logits, step), soft)
