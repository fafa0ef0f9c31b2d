"""One optax transformation for the three kinds of things that a joint step trains."""
import jax
import optax

from effjax.errors import EffjaxError
from effjax.reparam import Reparam, Slots
from effjax.tree import PyTree

WEIGHTS, PARAMETERS, DECISIONS = 'weights', 'parameters', 'decisions'


def optimizer(reparam: Reparam, slots: Slots, *, weights: optax.GradientTransformation,
              parameters: optax.GradientTransformation | None = None,
              decisions: optax.GradientTransformation | None = None) -> optax.GradientTransformationExtraArgs:
  """`optax.partition` of `(theta, phi, heads)`: theta and heads, phi's parameters, phi's decisions.

  Args:
    reparam: says which entries of phi are decisions.
    slots: whose structure is labelled; only its shape is read.
    weights: for theta and for the heads of the terms.
    parameters: for scales, factors and the like.
    decisions: for operator logits, gates and bit logits.

  Raises:
    EffjaxError: phi holds parameters or decisions, and no optimizer for them is given.

  >>> from effjax import reparam
  >>> identity = reparam.chain()
  >>> tx = optimizer(identity, identity.init(jax.random.key(0), {'w': 1.}), weights=optax.sgd(.1))
  >>> sorted(tx.init(({'w': 1.}, (), {})).inner_states)
  ['decisions', 'parameters', 'weights']
  """
  phi_labels = jax.tree.map(lambda decision: DECISIONS if decision else PARAMETERS, reparam.decisions(slots.phi))
  groups = {WEIGHTS: weights, PARAMETERS: parameters, DECISIONS: decisions}
  for group in sorted(set(jax.tree.leaves(phi_labels))):
    if groups[group] is None:
      raise EffjaxError(f'optimizer: phi holds {group}, and no optimizer is given for them: pass {group}=...')

  def labels(params: tuple[PyTree, PyTree, PyTree]) -> tuple[PyTree, PyTree, PyTree]:
    theta, _, heads = params
    return jax.tree.map(lambda _: WEIGHTS, theta), phi_labels, jax.tree.map(lambda _: WEIGHTS, heads)

  return optax.partition({group: tx or optax.identity() for group, tx in groups.items()}, labels)
