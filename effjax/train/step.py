"""The joint step: weights, scales, gates, operators and bits move at once, by one differentiation."""
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from effjax import schedule
from effjax.errors import EffjaxError
from effjax.reparam import Reparam, Slots
from effjax.search.architecture_gradient import finite_differences, unrolled
from effjax.train.objective import Objective
from effjax.train.optimizer import DECISIONS, PARAMETERS, WEIGHTS
from effjax.train.state import TrainState

SECOND_ORDER = {'second': unrolled, 'finite_differences': finite_differences}
Metrics = dict[str, Float[Array, '']]
Step = Callable[..., tuple[TrainState, Metrics]]


def make_step(objective: Objective, reparam: Reparam, optimizer: optax.GradientTransformation, *,
              bilevel: str | None = None, inner_rate: float | None = None, axis_name: str | None = None) -> Step:
  """`step(state, batch, held_out=None) -> (state, metrics)`, pure; compile it with `compile_step`.

  Single level (`bilevel=None`; SNAS, survey [97]): `(theta, phi, heads)` move together along the gradient of one loss
  on `batch`. The loss is differentiated once, in (weights, facts, heads), and pulled back through the
  reparameterisation, which so learns `dL/dweights` for its own memory at no cost.

  Bilevel (DARTS, survey [68], algorithm 1): first the decisions move by their gradient of `L_val` on `held_out`, then
  everything else by that of `L_train` on `batch`. `L_val` contains the penalty of the budgets.
    'first': `d/dphi L_val(theta, phi)`, the paper's `xi = 0`.
    'second': `d/dphi L_val(theta - xi dL_train/dtheta(theta, phi), phi)`, eq. 7, differentiated exactly through that
      one step of SGD on theta and heads (`search.unrolled`).
    'finite_differences': the same by eq. 8, in less memory (`search.finite_differences`).

  Args:
    objective, reparam, optimizer: bilevel wants the optimizer of `effjax.train.optimizer`.
    bilevel: None, 'first', 'second' or 'finite_differences'.
    inner_rate: `xi`, for the last two only; the paper takes the learning rate of the weights.
    axis_name: of the devices, under `pmap`: gradients, metrics and the model's state are averaged over it.

  Metrics are scalars: those of the objective, and under bilevel `held_out/...` those of the held-out batch. They are
  taken before the step. Randomness comes from `fold_in(state.key, state.step)`, equal on all devices.

  Raises:
    EffjaxError: an unknown `bilevel`, `inner_rate` without second order or the reverse, no decisions, no held-out
      batch.

  Source: Liu et al. 2019, "DARTS: Differentiable architecture search", arXiv:1806.09055; Xie et al. 2019, "SNAS",
  arXiv:1812.09926.
  Differs from the paper: 'second' is exact, and goes through heads too; the authors' code has momentum and weight
  decay in the inner step, eq. 7 has not.

  >>> from effjax.train.objective import objective, cross_entropy
  >>> from effjax.train.state import init_state
  >>> from effjax import reparam
  >>> forward = lambda weights, model_state, batch, key: ({'logits': batch['image'] @ weights}, model_state)
  >>> task, identity, tx = objective(forward, [cross_entropy()]), reparam.chain(), optax.sgd(1.)
  >>> batch = {'image': jnp.ones((2, 3)), 'label': jnp.array([0, 0])}
  >>> slots = identity.init(jax.random.key(0), jnp.zeros((3, 4)))
  >>> state = init_state(task, identity, tx, slots, {}, batch, jax.random.key(0))
  >>> for _ in range(2): state, metrics = make_step(task, identity, tx)(state, batch)
  >>> int(state.step), round(float(metrics['loss']), 4)
  (2, 0.1392)
  """
  _check(bilevel, inner_rate)
  mean = (lambda tree: tree) if axis_name is None else functools.partial(jax.lax.pmean, axis_name=axis_name)

  def view(state, key, theta, phi):
    memory = state.slots.state
    return reparam.apply(theta, phi, memory, key), reparam.facts(Slots(theta, phi, memory), False)

  def joint(state, batch, key):
    view_key, key = jax.random.split(key)
    (weights, facts), pull = jax.vjp(functools.partial(view, state, view_key), state.slots.theta, state.slots.phi)
    gradient = jax.value_and_grad(objective.loss, argnums=(0, 1, 2), has_aux=True, allow_int=True)
    (_, aux), (dweights, dfacts, dheads) = gradient(
        weights, facts, state.heads, state.model_state, batch, key, state.controller)
    dweights, dheads = mean((dweights, dheads))
    return (*pull((dweights, dfacts)), dheads), dweights, aux

  def second_order(state, batch, held_out, key, held_key):
    def loss(weights, phi, batch, key):
      (theta, heads), (view_key, key) = weights, jax.random.split(key)
      return objective.loss(*view(state, view_key, theta, phi), heads, state.model_state, batch, key, state.controller)

    train = lambda weights, phi: loss(weights, phi, batch, key)[0]
    val = lambda weights, phi: loss(weights, phi, held_out, held_key)
    inner = lambda weights, gradient: jax.tree.map(
        lambda w, g: w - jnp.asarray(inner_rate, w.dtype) * g, weights, mean(gradient))
    weights = state.slots.theta, state.heads
    (_, aux), dphi = SECOND_ORDER[bilevel](train, val, weights, state.slots.phi, inner_step=inner, has_aux=True)
    dtheta, dheads = jax.tree.map(jnp.zeros_like, weights)
    return (dtheta, mean(dphi), dheads), aux

  def decide(state, batch, held_out, key, held_key):
    if bilevel in SECOND_ORDER:
      gradients, aux = second_order(state, batch, held_out, key, held_key)
    else:
      gradients, _, aux = joint(state, held_out, held_key)
    return _advance(optimizer, reparam, state, gradients, (DECISIONS,)), aux

  def step(state, batch, held_out=None):
    _check_batches(bilevel, held_out, reparam, state)
    key, held_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    metrics = {}
    if bilevel is not None:
      state, aux = decide(state, batch, held_out, key, held_key)
      metrics = {f'held_out/{name}': value for name, value in aux.metrics.items() if not _of_budget(name)}
    gradients, dweights, aux = joint(state, batch, key)
    memory = reparam.update(state.slots, dweights)
    state = _advance(optimizer, reparam, state, gradients, None if bilevel is None else (WEIGHTS, PARAMETERS))
    return _finish(objective, state, memory, mean_floats(aux.model_state), aux), mean(metrics | aux.metrics)

  def mean_floats(tree):
    return jax.tree.map(lambda x: mean(x) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)

  step.axis_name = axis_name
  return step


def _advance(optimizer, reparam, state, gradients, groups):
  """The state after the optimizer's step on the groups named; None: on all of them."""
  params = (state.slots.theta, state.slots.phi, state.heads)
  updates, opt_state = optimizer.update(gradients, state.opt_state, params)
  if groups is not None:
    old, new = state.opt_state.inner_states, opt_state.inner_states
    opt_state = opt_state._replace(inner_states={name: (new if name in groups else old)[name] for name in old})
    updates = _only(reparam, updates, DECISIONS in groups)
  theta, phi, heads = optax.apply_updates(params, updates)
  return state._replace(slots=Slots(theta, phi, state.slots.state), heads=heads, opt_state=opt_state)


def _only(reparam, updates, decisions):
  """The updates of decisions alone, or of all else; zero elsewhere."""
  keep = lambda wanted: lambda update: update if wanted else jnp.zeros_like(update)
  dtheta, dphi, dheads = updates
  dphi = jax.tree.map(lambda decision, update: keep(decision == decisions)(update), reparam.decisions(dphi), dphi)
  return jax.tree.map(keep(not decisions), dtheta), dphi, jax.tree.map(keep(not decisions), dheads)


def _finish(objective, state, memory, model_state, aux):
  return state._replace(
      slots=state.slots._replace(state=memory), model_state=model_state, step=schedule.advance(state.step),
      controller=objective.controller.update(state.controller, aux.violations))


def _of_budget(name):
  return name.startswith(('cost/', 'multiplier/'))


def _check(bilevel, inner_rate):
  if bilevel not in (None, 'first', *SECOND_ORDER):
    raise EffjaxError(f"make_step: bilevel must be None, 'first', 'second' or 'finite_differences', got {bilevel!r}")
  if (bilevel in SECOND_ORDER) != (inner_rate is not None):
    raise EffjaxError(f'make_step: second order and inner_rate go together, got bilevel={bilevel!r} and '
                      f'inner_rate={inner_rate}: the rate is usually the learning rate of the weights')


def _check_batches(bilevel, held_out, reparam, state):
  if (bilevel is None) != (held_out is None):
    got = 'none' if held_out is None else 'one'
    raise EffjaxError(f'step: bilevel={bilevel!r} and a held-out batch go together, got {got}: '
                      'pass step(state, batch, held_out) under bilevel only')
  if bilevel is not None and not any(jax.tree.leaves(reparam.decisions(state.slots.phi))):
    raise EffjaxError(f'step: bilevel={bilevel!r} trains decisions, and no rule has any: use bilevel=None')
  if bilevel is not None and not hasattr(state.opt_state, 'inner_states'):
    raise EffjaxError(f'step: bilevel={bilevel!r} wants the optimizer of effjax.train.optimizer, which keeps decisions '
                      f'apart, got a state of type {type(state.opt_state).__name__}')
