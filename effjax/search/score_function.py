"""REINFORCE: the gradient of an expected reward that is only known one draw at a time."""
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from effjax import schedule
from effjax.errors import EffjaxError
from effjax.tree import PyTree


class Baseline(NamedTuple):
  """What `score_function` remembers: the exponential average of past rewards, and of how many calls."""
  average: Float[Array, '']
  step: Int[Array, '']


def baseline() -> Baseline:
  """Before the first reward: its value is 0.

  >>> baseline()
  Baseline(average=Array(0., dtype=float32), step=Array(0, dtype=int32))
  """
  return Baseline(jnp.zeros((), jnp.float32), schedule.start())


def log_probability(logits: PyTree, draw: PyTree) -> Float[Array, '']:
  """`log P(draw) = sum_e log softmax(a_e)[draw_e]`: independent choices, one softmax along each last axis.

  Args:
    logits: tree of [..., k].
    draw: one-hots in the same tree.

  >>> logits, draw = {'a': jnp.zeros(2), 'b': jnp.zeros(5)}, {'a': jnp.eye(2)[0], 'b': jnp.eye(5)[3]}
  >>> round(float(jnp.exp(log_probability(logits, draw))), 6)
  0.1
  """
  each = jax.tree.map(lambda a, one_hot: jnp.sum(jax.nn.log_softmax(a) * one_hot), logits, draw)
  return jax.tree.reduce(jnp.add, each)


def score_function(params: PyTree, draws: PyTree, rewards: Float[Array, ' m'], state: Baseline, *, decay: float = 0.95,
                   log_prob: Callable[[PyTree, PyTree], Float[Array, '']] = log_probability) -> tuple[PyTree, Baseline]:
  """`1/m sum_k grad log P(draw_k) (R_k - b)`, an unbiased estimate of the gradient of `E[R]`: follow it upwards.

  The reward is to grow, and optimizers descend: give them the negative. b is the average of the rewards of earlier
  calls, `sum_i decay^i R_(t-1-i)` over `sum_i decay^i`. It never contains the rewards that it is subtracted from,
  which would bias the estimate. On the first call it is 0.

  Args:
    params: of the policy; for `log_probability` a tree of logits.
    draws: m draws from it, stacked along a new first axis.
    rewards: of each draw.
    state: `baseline()` at the start, then what the call before returned.
    decay: of the average, in [0, 1).
    log_prob: `(params, draw) -> log P(draw)`.

  Returns:
    The estimate, a tree like `params`, and the new state.

  Raises:
    EffjaxError: not one reward per draw; decay out of range.

  Differs from the papers: the average is divided by the weight that it has gathered, so that the zero it starts from
  does not count; no entropy bonus and no cube of the accuracy, which are part of a reward or of a loss.

  Source: Williams 1992; Zoph, Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017,
  arXiv:1611.01578, survey [62]; ENAS, Pham et al. 2018, arXiv:1802.03268, survey [65].

  >>> draws, rewards = jnp.eye(2), jnp.array([1., 3.])
  >>> gradient, state = score_function(jnp.zeros(2), draws, rewards, baseline())
  >>> gradient, score_function(jnp.zeros(2), draws, rewards, state)[0]
  (Array([-0.5,  0.5], dtype=float32), Array([-0.5,  0.5], dtype=float32))
  """
  _check(draws, rewards, decay)
  past = 1. - jnp.float32(decay)**state.step.astype(jnp.float32)
  b = jnp.where(state.step > 0, state.average / jnp.where(state.step > 0, past, 1.), 0.)
  advantages = rewards - b.astype(rewards.dtype)
  surrogate = lambda params: jnp.mean(jax.vmap(lambda draw: log_prob(params, draw))(draws) * advantages)
  average = decay * state.average + (1. - decay) * jnp.mean(rewards.astype(jnp.float32))
  return jax.grad(surrogate)(params), Baseline(average, schedule.advance(state.step))


def _check(draws, rewards, decay):
  if not 0. <= decay < 1.:
    raise EffjaxError(f'score_function: decay must be in [0, 1), got {decay}: it is the weight of the average so far')
  for x in jax.tree.leaves(draws):
    if x.shape[:1] != rewards.shape:
      raise EffjaxError(f'score_function: draws of shape {x.shape} and rewards of shape {rewards.shape}, wanted one '
                        'reward per draw: stack both along a first axis')
