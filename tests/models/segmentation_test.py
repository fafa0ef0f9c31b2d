"""Losses and metrics of segmentation against loops in float64."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.models.segmentation import confusion, mean_iou, pixel_accuracy, pixel_cross_entropy

rng = np.random.default_rng(0)
LOGITS = rng.normal(size=(2, 4, 5, 3)) * 5
LABELS = rng.integers(0, 4, size=(2, 4, 5)).astype(np.int32)  # 3 has no class
LABELS[0, 0, :3] = -1, 255, 3


def losses():
  """(label, loss) of each labelled pixel."""
  for at in np.ndindex(LABELS.shape):
    if 0 <= LABELS[at] < 3:
      yield LABELS[at], np.log(np.exp(LOGITS[at]).sum()) - LOGITS[at][LABELS[at]]


@pytest.mark.parametrize('weights', [None, [1., 3., .5]])
def test_cross_entropy(weights):
  w = np.ones(3) if weights is None else np.array(weights)
  wanted = sum(w[label] * loss for label, loss in losses()) / sum(w[label] for label, _ in losses())
  of = lambda logits: pixel_cross_entropy(logits, jnp.asarray(LABELS), None if weights is None else jnp.asarray(w, jnp.float32))
  loss, gradient = jax.value_and_grad(of)(jnp.asarray(LOGITS, jnp.float32))
  np.testing.assert_allclose(loss, wanted, rtol=1e-5)
  unlabelled = (LABELS < 0) | (LABELS > 2)
  assert unlabelled.sum() > 5
  np.testing.assert_array_equal(np.any(np.asarray(gradient) != 0, -1), ~unlabelled)


def test_nothing_labelled():
  loss, gradient = jax.value_and_grad(pixel_cross_entropy)(jnp.ones((2, 2, 3)), jnp.full((2, 2), 255))
  assert loss == 0
  np.testing.assert_array_equal(gradient, np.zeros((2, 2, 3)))


def test_confusion_and_what_is_made_of_it():
  predicted = LOGITS.argmax(-1).astype(np.int32)
  counts = np.zeros((3, 3), int)
  for at in np.ndindex(LABELS.shape):
    if 0 <= LABELS[at] < 3:
      counts[LABELS[at], predicted[at]] += 1
  found = jax.jit(confusion, static_argnums=2)(jnp.asarray(predicted), jnp.asarray(LABELS), 3)
  np.testing.assert_array_equal(found, counts)
  truth, guess = LABELS.ravel(), predicted.ravel()
  known = (truth >= 0) & (truth < 3)
  ious = [np.sum((truth == c) & (guess == c)) / np.sum(((truth == c) | (guess == c)) & known) for c in range(3)]
  np.testing.assert_allclose(mean_iou(found), np.mean(ious), rtol=1e-6)
  np.testing.assert_allclose(mean_iou(jnp.pad(found, ((0, 1), (0, 1)))), np.mean(ious), rtol=1e-6)  # a class nowhere
  np.testing.assert_allclose(pixel_accuracy(found), np.mean((truth == guess)[known]), rtol=1e-6)


def test_the_best_and_the_worst():
  same = confusion(jnp.arange(3), jnp.arange(3), 3)
  assert mean_iou(same) == pixel_accuracy(same) == 1
  other = confusion(jnp.array([1, 2, 0]), jnp.arange(3), 3)
  assert mean_iou(other) == pixel_accuracy(other) == 0
