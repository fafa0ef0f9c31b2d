"""Losses of detectors: means over the boxes that train."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def objectness(logits: Float[Array, '*n'], label: Int[Array, '*n'], train: Bool[Array, '*n']) -> Float[Array, '']:
  """The mean of `-label log sigmoid(logit) - (1 - label) log sigmoid(-logit)` over the boxes that `train` chooses.

  >>> objectness(jnp.zeros(3), jnp.array([1, 0, -1]), jnp.array([True, True, False]))
  Array(0.6931472, dtype=float32)
  """
  losses = jax.nn.softplus(jnp.where(label == 1, -logits, logits))
  return _mean(jnp.where(train, losses, 0), train)


def classes(logits: Float[Array, '*n classes'], label: Int[Array, '*n'],
            train: Bool[Array, '*n']) -> Float[Array, '']:
  """The mean cross entropy of the boxes that `train` chooses; label 0 is the background.

  >>> classes(jnp.zeros((2, 4)), jnp.array([0, 3]), jnp.array([True, True]))
  Array(1.3862944, dtype=float32)
  """
  log = jax.nn.log_softmax(logits)
  return _mean(jnp.where(train, -jnp.take_along_axis(log, label[..., None], -1)[..., 0], 0), train)


def offsets(deltas: Float[Array, '*n 4'], wanted: Float[Array, '*n 4'], positive: Bool[Array, '*n'],
            train: Bool[Array, '*n'], *, beta: float = 1 / 9) -> Float[Array, '']:
  """The sum over positive boxes and coordinates of smooth L1, by the number of boxes that `train` chooses.

  Smooth L1 is `d^2 / (2 beta)` where `|d| < beta`, else `|d| - beta / 2`.

  Source: Girshick, "Fast R-CNN", ICCV 2015, arXiv:1504.08083.

  >>> offsets(jnp.array([[2., 0., 0., 0.], [9., 9., 9., 9.]]), jnp.zeros((2, 4)), jnp.array([True, False]),
  ...         jnp.array([True, True]), beta=1.)
  Array(0.75, dtype=float32)
  """
  size = jnp.abs(jnp.where(positive[..., None], deltas - wanted, 0))  # whatever the others want is no number to derive
  losses = jnp.where(size < beta, size**2 / (2 * beta), size - beta / 2).sum(-1)
  return _mean(losses, train)


def _mean(losses, train):
  return losses.sum() / jnp.maximum(train.sum(), 1).astype(losses.dtype)
