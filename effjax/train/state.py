"""What a training run is at one moment: one pytree, which the step maps to the next."""
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from effjax import schedule
from effjax.reparam import Reparam, Slots
from effjax.train.budgets import Multipliers
from effjax.train.objective import Batch, Objective
from effjax.tree import PyTree

Key = jax.Array


class TrainState(NamedTuple):
  """All that changes while training; donated to the step and saved in a checkpoint.

  slots: theta, phi and the memory of the methods.
  heads: trainable parameters of the objective's terms, by term name.
  model_state: what the model threads through, e.g. Flax's `batch_stats`.
  opt_state: of the optimizer of `(theta, phi, heads)`.
  controller: the multipliers of the budgets.
  step: steps done so far.
  key: of the whole run; a step uses `fold_in(key, step)`.
  """
  slots: Slots
  heads: dict[str, PyTree]
  model_state: PyTree
  opt_state: Any
  controller: Multipliers
  step: Int[Array, '']
  key: Key


def init_state(objective: Objective, reparam: Reparam, optimizer: optax.GradientTransformation, slots: Slots,
               model_state: PyTree, batch: Batch, key: Key, *, axis_name: str | None = None) -> TrainState:
  """The state before the first step: heads, optimizer and controller made from the shapes of one batch.

  Every array is copied and strongly typed, so that donating the state leaves the caller's arrays alone and no step
  is traced twice.

  Args:
    objective, reparam, optimizer: as given to `make_step`.
    slots: from `reparam.init`.
    model_state: as the model's own `init` made it.
    batch: any one batch; only its shapes are read.
    key: of the whole run.
    axis_name: of the devices, if the model asks for it (BatchNorm under `pmap`).

  >>> from effjax import reparam
  >>> from effjax.train.objective import cross_entropy, objective
  >>> forward = lambda weights, model_state, batch, key: ({'logits': batch['image'] @ weights}, model_state)
  >>> identity = reparam.chain()
  >>> slots = identity.init(jax.random.key(0), jnp.zeros((3, 4)))
  >>> state = init_state(objective(forward, [cross_entropy()]), identity, optax.sgd(.1), slots, {},
  ...                    {'image': jnp.ones((2, 3)), 'label': jnp.array([0, 1])}, jax.random.key(0))
  >>> int(state.step), state.heads
  (0, {'cross_entropy': None})
  """
  head_key, run_key = jax.random.split(key)
  weights = jax.eval_shape(reparam.apply, *slots, key)
  init = objective.init
  if axis_name is not None:
    init = jax.vmap(init, in_axes=None, out_axes=None, axis_name=axis_name, axis_size=1)
  heads = init(head_key, weights, model_state, batch)
  opt_state = optimizer.init((slots.theta, slots.phi, heads))
  controller = objective.controller.init(objective.budgets)
  state = TrainState(slots, heads, model_state, opt_state, controller, schedule.start(), run_key)
  return jax.tree.map(_owned, state)


def _owned(x):
  return x.copy() if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key) else jnp.array(x, jnp.result_type(x))
