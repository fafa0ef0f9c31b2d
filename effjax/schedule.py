"""Numbers that may change with the step: `float | Schedule` wherever time matters."""
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Schedule = Callable[[Int[Array, '']], Float[Array, '']]


def value(schedule: float | Schedule, step: Int[Array, '']) -> Float[Array, '']:
  """The number at `step`, strongly typed float32: of an optax schedule, or the constant.

  >>> value(0.5, start()), value(lambda step: 2 - step, start())
  (Array(0.5, dtype=float32), Array(2., dtype=float32))
  """
  return jnp.asarray(schedule(step) if callable(schedule) else schedule, jnp.float32)


def start() -> Int[Array, '']:
  """Step zero, strongly typed, so that counting it never retraces.

  >>> start()
  Array(0, dtype=int32)
  """
  return jnp.zeros((), jnp.int32)


def advance(step: Int[Array, '']) -> Int[Array, '']:
  """The next step.

  >>> advance(start())
  Array(1, dtype=int32)
  """
  return step + jnp.ones((), jnp.int32)
