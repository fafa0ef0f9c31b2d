"""What keeps a search open or makes it decide: entropy, and the distance from a decision."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
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
