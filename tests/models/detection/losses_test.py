"""Losses against float64 sums over the boxes that train."""
import jax
import jax.numpy as jnp
import numpy as np

from effjax.models.detection import losses

RNG = np.random.default_rng(0)
TRAIN = RNG.uniform(size=20) < .5
ARRAYS = lambda *arrays: [jnp.asarray(array) for array in arrays]


def test_objectness():
  logits, label = RNG.normal(size=20).astype(np.float32) * 5, RNG.integers(0, 2, 20, np.int32)
  p = 1 / (1 + np.exp(-np.float64(logits)))
  expected = -np.where(label == 1, np.log(p), np.log(1 - p))[TRAIN].mean()
  np.testing.assert_allclose(losses.objectness(*ARRAYS(logits, label, TRAIN)), expected, rtol=1e-5)


def test_classes():
  logits, label = RNG.normal(size=(20, 4)).astype(np.float32), RNG.integers(0, 4, 20, np.int32)
  p = np.exp(np.float64(logits)) / np.exp(np.float64(logits)).sum(-1, keepdims=True)
  expected = -np.log(p[np.arange(20), label])[TRAIN].mean()
  np.testing.assert_allclose(losses.classes(*ARRAYS(logits, label, TRAIN)), expected, rtol=1e-5)


def test_offsets():
  deltas, wanted = RNG.normal(size=(2, 20, 4)).astype(np.float32)
  positive, total = TRAIN & (RNG.uniform(size=20) < .5), 0.
  for d in np.abs(np.float64(deltas) - wanted)[positive].ravel():
    total += d**2 / (2 * .5) if d < .5 else d - .25
  found = losses.offsets(*ARRAYS(deltas, wanted, positive, TRAIN), beta=.5)
  np.testing.assert_allclose(found, total / TRAIN.sum(), rtol=1e-5)


def test_nothing_to_train_on_is_zero_with_a_finite_gradient():
  none, wanted = jnp.zeros(3, bool), jnp.full((3, 4), jnp.inf)
  loss = lambda deltas: losses.offsets(deltas, wanted, none, none) + losses.objectness(deltas[:, 0], none.astype(int), none)
  value, gradient = jax.value_and_grad(loss)(jnp.ones((3, 4)))
  assert value == 0 and not gradient.any()
