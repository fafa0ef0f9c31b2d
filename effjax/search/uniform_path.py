"""Single path one-shot: every operator drawn equally often, and chosen later."""
import jax
import jax.numpy as jnp

from effjax.reparam import Rule
from effjax.search.choice import choice_rule


def uniform_path() -> Rule:
  """The entries of a `Choice` leaf as the one-hot of an operator drawn uniformly, per key.

  So a supernet trains its weights alone; a search (evolution, random) then sets the logits in the state, of which
  `key=None` gives the one-hot of the largest. Gradient: none, the draw does not depend on anything that trains.

  Slots: theta None; phi = {}; state = {'logits': [n], 'step'}, zeros at the start.
  Facts: choice: soft, 1/n each; hard, the one-hot (the first of equals).

  Raises:
    EffjaxError: a leaf that is not a vector.

  Differs from the paper: all operators run and those not drawn are multiplied by 0, unless the choice has `paths=1`.

  Source: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020,
  arXiv:1904.00420.

  >>> rule = uniform_path()
  >>> slots = rule.init(jax.random.key(0), jnp.ones(4))
  >>> float(rule.apply(*slots, jax.random.key(1)).sum()), rule.facts(slots, False).choice
  (1.0, Array([0.25, 0.25, 0.25, 0.25], dtype=float32))
  """
  def draw(key, logits, step):
    return jax.nn.one_hot(jax.random.randint(key, (), 0, logits.size), logits.size, dtype=logits.dtype)

  return choice_rule('uniform_path', draw, lambda logits, step: jnp.full_like(logits, 1 / logits.size), trained=False)
