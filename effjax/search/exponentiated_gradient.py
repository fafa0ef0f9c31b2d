"""GAEA: descent on the simplex, by factors instead of by differences."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from effjax import schedule
from effjax.errors import EffjaxError
from effjax.schedule import Schedule


class ExponentiatedGradientState(NamedTuple):
  """How many steps were made."""
  step: Int[Array, '']


def exponentiated_gradient(learning_rate: float | Schedule) -> optax.GradientTransformation:
  """`p <- p exp(-lr g) / Z`, g the gradient by p, Z so that the last axis sums to 1: for weights on a simplex.

  Mirror descent with the entropy as its mirror map. An entry that is 0 stays 0. With `p = softmax(a)` it is
  `a <- a - lr g`, g still the gradient by p: `mirror_softmax` with `optax.sgd`.

  Args:
    learning_rate: a number or a schedule of the step.

  Raises:
    EffjaxError: `update` is not given the parameters.

  Differs from the paper: none; theirs alternates it with a step of the network's weights.

  Source: Li, Khodak, Balcan, Talwalkar, "Geometry-Aware Gradient Algorithms for Neural Architecture Search",
  ICLR 2021, arXiv:2004.07802; Kivinen, Warmuth 1997.

  >>> p, tx = jnp.array([0.25, 0.75]), exponentiated_gradient(1.)
  >>> updates, state = tx.update(jnp.log(jnp.array([1., 3.])), tx.init(p), p)
  >>> optax.apply_updates(p, updates)
  Array([0.5, 0.5], dtype=float32)
  """
  def update(gradients, state, params=None):
    if params is None:
      raise EffjaxError('exponentiated_gradient: update got no params, wants the weights that it multiplies: '
                        'call update(gradients, state, params)')
    rate = schedule.value(learning_rate, state.step)
    moved = lambda g, p: jax.nn.softmax(jnp.log(p) - rate.astype(p.dtype) * g) - p
    return jax.tree.map(moved, gradients, params), ExponentiatedGradientState(schedule.advance(state.step))

  return optax.GradientTransformation(lambda params: ExponentiatedGradientState(schedule.start()), update)
