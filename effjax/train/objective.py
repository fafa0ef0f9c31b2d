"""What a step minimises: the terms of the task and of distillation, and the controller's penalty for the budgets."""
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.reparam import Fact
from effjax.term import Outputs, Term
from effjax.train.budgets import Budget, Controller, Multipliers, Violations, augmented_lagrangian, violation
from effjax.tree import Path, PyTree

Key = jax.Array
Batch = dict[str, Any]
Forward = Callable[[PyTree, PyTree, Batch, Key | None], tuple[Outputs, PyTree]]


class Aux(NamedTuple):
  """What the loss hands back besides its value: the model's new state, scalars to log, `cost / limit - 1`."""
  model_state: PyTree
  metrics: dict[str, Float[Array, '']]
  violations: Violations


class Objective(NamedTuple):
  """The loss as a function of the weights that the model sees and of the facts, plus what it needs to begin.

  init(key, weights, model_state, batch) -> heads, the terms' own trainable parameters by term name (shapes suffice).
  loss(weights, facts, heads, model_state, batch, key, multipliers) -> (scalar, Aux).
  controller, budgets: as given to `objective`.
  """
  init: Callable[[Key, PyTree, PyTree, Batch], dict[str, PyTree]]
  loss: Callable[..., tuple[Float[Array, ''], Aux]]
  controller: Controller
  budgets: Mapping[str, Budget]


def objective(forward: Forward, terms: Sequence[Term], *, budgets: Mapping[str, Budget] | None = None,
              penalties: Mapping[str, Callable[[dict[Path, Fact]], Float[Array, '']]] | None = None,
              teacher: Callable[[Batch], Outputs] | None = None,
              augment: Callable[[Key, jax.Array], jax.Array] | None = None,
              controller: Controller | None = None) -> Objective:
  """`loss = sum_i term_i(outputs, targets) + penalty(cost_j(facts) / limit_j - 1) + sum_k penalty_k(facts)`.

  Args:
    forward: `(weights, model_state, batch, key) -> (outputs, model_state)`; `outputs['logits']` is [n, classes].
      The key is the same on all devices.
    terms: at least one, each with its own weight inside and a name of its own.
    budgets: by name; metrics call the cost `cost/<name>` and its multiplier `multiplier/<name>`.
    penalties: by name, scalars of the facts that are added as they are, with their own weight inside, such as the
      entropy of all choices, `lambda facts: w * search.total_entropy({k: f.choice for k, f in facts.items()})`; metrics
      call them `penalty/<name>`.
    teacher: `batch -> outputs`, evaluated in the same step on the augmented images; no gradient reaches it.
    augment: `(keys [n], batch['image'] [n, ...]) -> images`, inside the step. Example `i` gets a key made from
      `batch['id'][i]`, int32, so that any split of the batch over devices augments it alike.
    controller: of the budgets; default `augmented_lagrangian()`.

  Raises:
    EffjaxError: no terms, two of one name, a limit that is not positive, no `id` to augment by, outputs without
      logits of shape [n, classes].

  >>> class_scores = lambda weights, model_state, batch, key: ({'logits': batch['image'] @ weights}, model_state)
  >>> loss = objective(class_scores, [cross_entropy()]).loss
  >>> batch = {'image': jnp.ones((2, 3)), 'label': jnp.array([0, 1])}
  >>> value, aux = loss(jnp.zeros((3, 4)), {}, {'cross_entropy': None}, {}, batch, jax.random.key(0),
  ...                   augmented_lagrangian().init([]))
  >>> round(float(value), 3), sorted(aux.metrics)
  (1.386, ['accuracy', 'cross_entropy', 'loss'])
  """
  budgets, penalties, controller = dict(budgets or {}), dict(penalties or {}), controller or augmented_lagrangian()
  _check(terms, budgets)

  def run(weights, model_state, batch, key):
    augment_key, model_key = jax.random.split(key)
    batch = _augmented(augment, augment_key, batch)
    outputs, model_state = forward(weights, model_state, batch, model_key)
    _check_logits(outputs)
    given = {} if teacher is None else {'teacher': jax.lax.stop_gradient(teacher(batch))}
    return outputs, batch | given, model_state

  def init(key, weights, model_state, batch):
    outputs, targets, _ = jax.eval_shape(run, weights, model_state, batch, key)
    return {term.name: term.init(jax.random.fold_in(key, i), outputs, targets) for i, term in enumerate(terms)}

  def loss(weights, facts: dict[Path, Fact], heads, model_state, batch, key, multipliers: Multipliers):
    outputs, targets, model_state = run(weights, model_state, batch, key)
    values = {term.name: _real(term.loss(heads[term.name], outputs, targets)) for term in terms}
    costs = {name: _real(budget.cost(facts)) for name, budget in budgets.items()}
    violations = {name: violation(costs[name], budget.limit) for name, budget in budgets.items()}
    values |= {f'penalty/{name}': _real(penalty(facts)) for name, penalty in penalties.items()}
    total = sum(values.values(), start=_real(controller.penalty(multipliers, violations)))
    return total, Aux(model_state, _metrics(total, values, costs, multipliers, outputs, targets), violations)

  return Objective(init, loss, controller, budgets)


def cross_entropy(label_smoothing: float = 0.) -> Term:
  """`mean_i -sum_c t_ic log softmax(logits_i)_c`, `t = (1 - a) onehot(label) + a / classes`.

  Gradient by the logits: `(softmax(logits) - t) / n`.

  Args:
    label_smoothing: `a`, from 0 to below 1.

  Raises:
    EffjaxError: `a` outside of that.

  Source: label smoothing is Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision",
  arXiv:1512.00567, section 7.

  >>> term = cross_entropy(.1)
  >>> round(float(term.loss(None, {'logits': jnp.zeros((1, 2))}, {'label': jnp.array([1])})), 4)
  0.6931
  """
  if not 0. <= label_smoothing < 1.:
    raise EffjaxError(f'cross_entropy: label_smoothing must be from 0 to below 1, got {label_smoothing}')

  def loss(head, outputs, targets):
    logits = outputs['logits']
    onehot = jax.nn.one_hot(targets['label'], logits.shape[-1], dtype=logits.dtype)
    return optax.losses.softmax_cross_entropy(logits, optax.losses.smooth_labels(onehot, label_smoothing)).mean()

  return Term('cross_entropy', lambda key, outputs, targets: None, loss)


def _augmented(augment, key, batch):
  if augment is None:
    return batch
  if 'id' not in batch:
    raise EffjaxError(f"objective: augment needs batch['id'] (int32 [n], the place of each example in the batch), "
                      f'got a batch of {sorted(batch)}')
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(batch['id'])
  return batch | {'image': augment(keys, batch['image'])}


def _metrics(total, values, costs, multipliers, outputs, targets):
  metrics = {'loss': total} | values
  if 'label' in targets:
    metrics['accuracy'] = _real((jnp.argmax(outputs['logits'], -1) == targets['label']).mean())
  metrics |= {f'cost/{name}': cost for name, cost in costs.items()}
  return metrics | {f'multiplier/{name}': value for name, value in multipliers.values.items()}


def _real(x):
  """A scalar in JAX's default floating dtype: terms may come in any precision."""
  return jnp.asarray(x).astype(jnp.zeros(()).dtype)


def _check(terms, budgets):
  names = [term.name for term in terms]
  if not names or len(set(names)) < len(names):
    raise EffjaxError(f'objective: wants one term or more, each with a name of its own, got {names}')
  for name, budget in budgets.items():
    if not budget.limit > 0:
      raise EffjaxError(f'objective: budget {name!r} must be positive, got {budget.limit}')


def _check_logits(outputs):
  logits = outputs.get('logits') if isinstance(outputs, Mapping) else None
  if logits is None or len(logits.shape) != 2:
    got = sorted(outputs) if isinstance(outputs, Mapping) and logits is None else jax.tree.map(jnp.shape, outputs)
    raise EffjaxError("objective: forward must return ({'logits': [n, classes], ...}, model_state), "
                      f'got outputs {got}')
