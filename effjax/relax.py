"""Relaxed discrete choices: distributions over vertices that a gradient can move.

Everything takes the key and the temperature as arguments; the choice axis is the last one.
"""
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.errors import EffjaxError

Key = jax.Array


def softmax(logits: Float[Array, '*s k'], temperature: float | Float[Array, ''] = 1.) -> Float[Array, '*s k']:
  """`p_i = exp(a_i / T) / sum_j exp(a_j / T)` (DARTS, Liu et al. 2019, arXiv:1806.09055, survey [68]).

  >>> softmax(jnp.array([0., 0.]))
  Array([0.5, 0.5], dtype=float32)
  """
  return jax.nn.softmax(logits / jnp.asarray(temperature, logits.dtype), axis=-1)


def gumbel_softmax(key: Key, logits: Float[Array, '*s k'],
                   temperature: float | Float[Array, '']) -> Float[Array, '*s k']:
  """`softmax((a + G) / T)`, `G` standard Gumbel: argmax is distributed as `softmax(a)` at every temperature.

  Source: Jang et al. 2017, arXiv:1611.01144; Maddison et al. 2017, arXiv:1611.00712; SNAS, survey [97].
  Logits are log-probabilities up to a constant.

  >>> float(gumbel_softmax(jax.random.key(0), jnp.zeros(4), 0.5).sum().round(5))
  1.0
  """
  return softmax(logits + jax.random.gumbel(key, logits.shape, logits.dtype), temperature)


@jax.custom_jvp
def straight_through(p: Float[Array, '*s k']) -> Float[Array, '*s k']:
  """One-hot of the largest entry (the first of equals); derivative 1 (Jang et al. 2017, section 2.2).

  >>> straight_through(jnp.array([0.2, 0.5, 0.3]))
  Array([0., 1., 0.], dtype=float32)
  """
  return jax.nn.one_hot(jnp.argmax(p, -1), p.shape[-1], dtype=p.dtype)


straight_through.defjvps(lambda t, ans, p: t)


def hard_concrete(key: Key | None, log_alpha: Float[Array, '*s'], *, temperature: float = 2 / 3,
                  low: float = -0.1, high: float = 1.1) -> Float[Array, '*s']:
  """A gate in [0, 1] with mass at both ends (Louizos et al. 2018, arXiv:1712.01312, eq. 10-13).

  `s = sigmoid((log u - log(1 - u) + log_alpha) / T)`, `z = clip(s (high - low) + low, 0, 1)`; with `key=None`
  the paper's test-time gate `clip(sigmoid(log_alpha) (high - low) + low, 0, 1)`. The gradient is autodiff's:
  zero where the clip saturates.

  >>> hard_concrete(None, jnp.array([-9., 0., 9.]))
  Array([0. , 0.5, 1. ], dtype=float32)
  """
  _check_stretch(temperature, low, high)
  s = jax.nn.sigmoid(log_alpha if key is None else (_logistic(key, log_alpha) + log_alpha) / temperature)
  return jnp.clip(s * (high - low) + low, 0., 1.)


def hard_concrete_open(log_alpha: Float[Array, '*s'], *, temperature: float = 2 / 3,
                       low: float = -0.1, high: float = 1.1) -> Float[Array, '*s']:
  """`P(z > 0) = sigmoid(log_alpha - T log(-low / high))` of `hard_concrete`: the expected L0 norm of one gate.

  >>> round(float(hard_concrete_open(jnp.array(0.))), 3)
  0.832
  """
  _check_stretch(temperature, low, high)
  return jax.nn.sigmoid(log_alpha - temperature * math.log(-low / high))


def _logistic(key, like):
  return jax.random.logistic(key, like.shape, like.dtype)


def _check_stretch(temperature, low, high):
  if not (low < 0. < 1. < high and temperature > 0.):
    raise EffjaxError(f'hard_concrete: wants low < 0, high > 1 and temperature > 0, got low={low}, high={high}, '
                      f'temperature={temperature}: the defaults of the paper are -0.1, 1.1 and 2/3')
