"""FairDARTS: operators that do not compete, each behind a sigmoid of its own."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.reparam import Rule
from effjax.search.choice import choice_rule
from effjax.tree import PyTree


def sigmoid() -> Rule:
  """The entries of a `Choice` leaf as independent gates `p = sigmoid(a)`; with `key=None` the one-hot of the largest.

  Gradient: autodiff's, `p_i (1 - p_i)` on the diagonal. Nothing is random: the key only says that the choice is open.
  Add `zero_one_loss` to the loss, or the gates stay between 0 and 1.

  Slots: theta None; phi = {'logits': [n]}, a decision, zeros at the start; state = {'step'}.
  Facts: choice: soft, p, which need not sum to 1; hard, the one-hot (the first of equals).

  Raises:
    EffjaxError: a leaf that is not a vector.

  Differs from the paper: exactly one operator is deployed. The paper keeps those with p above a threshold, so that
  an edge may keep several or none, and then at most two edges into a node.

  Source: Chu, Zhou, Zhang, Li, "Fair DARTS: Eliminating Unfair Advantages in Differentiable Architecture Search",
  ECCV 2020, arXiv:1911.12126.

  >>> rule = sigmoid()
  >>> slots = rule.init(jax.random.key(0), jnp.ones(2))
  >>> rule.apply(*slots, jax.random.key(1)), rule.apply(*slots, None)
  (Array([0.5, 0.5], dtype=float32), Array([1., 0.], dtype=float32))
  """
  gates = lambda logits, step: jax.nn.sigmoid(logits)
  return choice_rule('sigmoid', lambda key, logits, step: gates(logits, step), gates)


def zero_one_loss(logits: PyTree) -> Float[Array, '']:
  """`-1/N sum_i (sigmoid(a_i) - 1/2)^2`: lowest, -1/4, where every gate is 0 or 1 (the paper weighs it by 10).

  Gradient: `-2/N (p_i - 1/2) p_i (1 - p_i)`: 0 at `p = 1/2`, away from it on both sides.

  Args:
    logits: one array or a tree of them, e.g. those of all choices; N counts their entries.

  >>> zero_one_loss(jnp.zeros(3)), zero_one_loss({'a': jnp.array([99.]), 'b': jnp.array([-99.])})
  (Array(-0., dtype=float32), Array(-0.25, dtype=float32))
  """
  every = jnp.concatenate([jnp.ravel(a) for a in jax.tree.leaves(logits)])
  return -jnp.mean((jax.nn.sigmoid(every) - 0.5)**2)
