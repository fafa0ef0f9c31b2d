"""What keeps a search open or makes it decide: entropy, the distance from a decision, an auxiliary skip."""
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.search.choice import Choice
from effjax.tree import PyTree


def entropy(p: Float[Array, '*s n']) -> Float[Array, '*s']:
  """`H(p) = -sum_i p_i log p_i` in nats, of each choice: 0 for a one-hot, log n for equal probabilities.

  Added to a loss, `+ weight H` makes a search decide, `- weight H` keeps it open. Gradient: `-log p_i - 1`, and 0
  where p_i is 0, so that what is closed stays closed. By the logits of a softmax it is 0 at equal logits too: there H
  is largest, and something else must break the tie.

  >>> entropy(jnp.array([[.5, .5], [1., 0.]])).round(4)
  Array([0.6931, 0.    ], dtype=float32)
  """
  return jnp.sum(-p * jnp.log(jnp.where(p > 0, p, 1)), -1)


def total_entropy(choices: PyTree) -> Float[Array, '']:
  """The sum of `entropy` over all choices of a tree, such as the probabilities by path; float32.

  Raises:
    EffjaxError: no choice.

  >>> total_entropy({'a': jnp.array([.5, .5]), 'b': jnp.full(4, .25)}).round(4)
  Array(2.0794, dtype=float32)
  """
  if not jax.tree.leaves(choices):
    raise EffjaxError('total_entropy: no choices: give the probabilities of at least one')
  return sum(jnp.sum(entropy(p).astype(jnp.float32)) for p in jax.tree.leaves(choices))


def distance_from_one_hot(p: Float[Array, '*s n']) -> Float[Array, '*s']:
  """`(1 - max_i p_i) n / (n - 1)`, for reports: exactly 0 at a one-hot, 1 at equal probabilities, in [0, 1].

  It is `|p - onehot|_1` by its largest value, and says how much of a supernet its discretisation throws away.

  >>> distance_from_one_hot(jnp.array([[0., 1.], [.5, .5], [.25, .75]]))
  Array([0. , 1. , 0.5], dtype=float32)
  """
  n = p.shape[-1]
  return jnp.clip((1 - jnp.max(p, -1)) * (n / max(n - 1, 1)), 0, 1)


class AuxiliarySkip(nn.Module):
  """`y = beta x + mixed(x, train)`: a skip beside the choice, so that the choice's own skip is not needed to train.

  beta goes from 1 to 0 in the course of a search (linearly in the paper), and may be traced: `schedule.value` of the
  step. The parameters are those of `mixed`, directly under this module's own path, so that it can be taken off after
  the search; at `beta = 0` it computes the same.

  Args:
    mixed: the choice.
    beta: a number, or a scalar array.

  Raises:
    EffjaxError: the choice's output has not the shape of its input.

  Source: Chu, Wang, Zhang, Lu, Wei, Yan 2021, "DARTS-: Robustly stepping out of performance collapse without
  indicators", arXiv:2009.01027.
  Differs from the paper: no auxiliary skip where the shape changes.

  >>> from effjax.search.choice import Skip
  >>> net = AuxiliarySkip(Choice((Skip(), Skip())), beta=.5)
  >>> net.init_with_output(jax.random.key(0), jnp.ones((1, 2)), False)
  (Array([[1.5, 1.5]], dtype=float32), {'params': {'choice': Array([0.5, 0.5], dtype=float32)}})
  """
  mixed: Choice
  beta: float | Float[Array, '']

  def setup(self) -> None:
    """The choice's parameters are this module's."""
    nn.share_scope(self, self.mixed)

  def __call__(self, x: Float[Array, '...'], train: bool) -> Float[Array, '...']:
    y = self.mixed(x, train)
    if y.shape != x.shape:
      raise EffjaxError(f'AuxiliarySkip {"/".join(self.path) or "(top)"}: the choice turns shape {x.shape} into '
                        f'{y.shape}: wants one shape, use the Choice alone there')
    return jnp.asarray(self.beta, y.dtype) * x.astype(y.dtype) + y
