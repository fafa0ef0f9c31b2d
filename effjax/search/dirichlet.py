"""DrNAS: an operator choice as a random point of the simplex."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.reparam import Rule
from effjax.search.choice import choice_rule
from effjax.tree import PyTree


def dirichlet() -> Rule:
  """The entries of a `Choice` leaf as one draw `p ~ Dirichlet(c)`, `c = elu(b) + 1`, per key.

  With `key=None` the one-hot of the largest b. Gradient: pathwise and unbiased, through gammas `g_i ~ Gamma(c_i)`,
  `p = g / sum(g)`: `dp_i / dc_j = (delta_ij - p_i) (dg_j / dc_j) / sum(g)`, with the implicit derivative
  `dg/dc = -(dF(g; c) / dc) / F'(g; c)` of the gamma's distribution function F.

  Slots: theta None; phi = {'logits': [n]}, the b, a decision, zeros (the uniform distribution) at the start;
    state = {'step'}.
  Facts: choice: soft, the mean `c / sum(c)`; hard, the one-hot (the first of equals).

  Raises:
    EffjaxError: a leaf that is not a vector.

  Differs from the paper: the derivative is that of gammas, as JAX has it, the paper's that of beta conditionals; one
  draw's differ, their means do not. Draws are made in float32 whatever the leaf's dtype.

  Source: Chen, Wang, Cheng, Tang, Hsieh, "DrNAS: Dirichlet Neural Architecture Search", ICLR 2021, arXiv:2006.10355;
  Figurnov, Mohamed, Mnih, "Implicit Reparameterization Gradients", 2018, arXiv:1805.08498.

  >>> rule = dirichlet()
  >>> slots = rule.init(jax.random.key(0), jnp.ones(4))
  >>> round(float(rule.apply(*slots, jax.random.key(1)).sum()), 5), rule.facts(slots, False).choice
  (1.0, Array([0.25, 0.25, 0.25, 0.25], dtype=float32))
  """
  def draw(key, logits, step):
    return jax.random.dirichlet(key, concentration(logits.astype(jnp.float32))).astype(logits.dtype)

  def mean(logits, step):
    c = concentration(logits)
    return c / jnp.sum(c)

  return choice_rule('dirichlet', draw, mean)


def concentration(logits: Float[Array, '*s']) -> Float[Array, '*s']:
  """`c = elu(b) + 1`: `exp(b)` below 0, `b + 1` above. Written so that a small c is not lost in `(exp(b) - 1) + 1`.

  >>> concentration(jnp.array([-20., 0., 3.]))
  Array([2.0611537e-09, 1.0000000e+00, 4.0000000e+00], dtype=float32)
  """
  return jnp.exp(jnp.minimum(logits, 0.)) + jnp.maximum(logits, 0.)


def anchor_distance(logits: PyTree) -> Float[Array, '']:
  """`sum_i (c_i - 1)^2`: how far the concentrations are from the anchor 1, to be added to the loss.

  It keeps draws from collapsing to a vertex (c near 0) and from losing their noise (c large).
  Gradient: `2 (c_i - 1) min(exp(b_i), 1)`.

  Differs from the paper: squared, since the distance itself has no derivative at the anchor, where a search starts.

  Args:
    logits: the b of one choice, or a tree of them.

  >>> anchor_distance(jnp.zeros(3)), anchor_distance({'a': jnp.array([2.]), 'b': jnp.array([-99.])})
  (Array(0., dtype=float32), Array(5., dtype=float32))
  """
  return sum(jnp.sum(jnp.square(concentration(b) - 1.)) for b in jax.tree.leaves(logits))
