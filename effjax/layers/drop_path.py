"""Dropout of whole paths."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def drop_path(key: Key[Array, ''], x: Float[Array, 'n *more'],
              rate: float | Float[Array, '']) -> Float[Array, 'n *more']:
  """`y[i] = x[i] keep[i] / (1 - rate)`, keep[i] in {0, 1} drawn per example with mean 1 - rate: E[y] = x.

  Args:
    key: of this path and step.
    rate: below 1. It may be traced, so that a schedule does not compile the step anew.

  Source: Larsson, Maire, Shakhnarovich, "FractalNet", ICLR 2017, arXiv:1605.07648, as NASNet has it, survey [6].

  >>> drop_path(jax.random.key(0), jnp.ones((4, 1)), .5).ravel()
  Array([0., 0., 2., 2.], dtype=float32)
  """
  keep = 1 - jnp.asarray(rate, x.dtype)
  kept = jax.random.bernoulli(key, keep, (x.shape[0],) + (1,) * (x.ndim - 1))
  return jnp.where(kept, x / keep, 0)
