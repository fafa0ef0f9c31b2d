"""Suppression against the loop of its definition."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.models import detection


def boxes(seed, count, size=20):
  corners = np.random.default_rng(seed).uniform(0, size, (count, 2, 2)).astype(np.float32)
  return jnp.asarray(np.concatenate([corners.min(1), corners.max(1) + 2], -1))


def reference(found, scores, threshold):
  """Indices in order: whoever overlaps no better one that is kept."""
  overlap, kept = np.asarray(detection.iou(found, found)), []
  for i in np.argsort(-scores):
    if np.isfinite(scores[i]) and all(overlap[i, j] <= threshold for j in kept):
      kept.append(int(i))
  return kept


@pytest.mark.parametrize('threshold', [.1, .5, .9])
def test_nms(threshold):
  run = jax.jit(lambda found, scores: detection.nms(found, scores, 30, threshold=threshold))
  for seed in range(4):
    found = boxes(seed, 40)
    scores = np.random.default_rng(seed).permutation(40).astype(np.float32)
    scores[:4] = -np.inf
    index, there = run(found, jnp.asarray(scores))
    kept = reference(found, scores, threshold)[:30]
    assert index[:len(kept)].tolist() == kept
    assert there.sum() == len(kept) and not index[len(kept):].any()


def test_proposals_are_the_best_of_the_best():
  anchors = boxes(0, 60)
  scores, deltas = jax.random.normal(jax.random.key(1), 60), .2 * jax.random.normal(jax.random.key(2), (60, 4))
  found, there = detection.proposals(scores, deltas, anchors, (16, 18), before=20, after=12, threshold=.5)
  order = np.argsort(-scores)[:20]
  moved = np.asarray(detection.clip(detection.decode(deltas[order], anchors[order]), (16, 18)))
  kept = reference(jnp.asarray(moved), np.asarray(scores)[order], .5)[:12]
  np.testing.assert_allclose(found[:len(kept)], moved[kept], rtol=1e-6)
  assert there.sum() == len(kept) and not found[len(kept):].any()
  assert found[..., [0, 2]].max() <= 16 and found[..., [1, 3]].max() <= 18 and found.min() >= 0


def test_proposals_carry_no_gradient():
  of = lambda deltas: detection.proposals(jnp.arange(6.), deltas, boxes(0, 6), (16, 16), before=4, after=2)[0].sum()
  assert not jax.grad(of)(jnp.zeros((6, 4))).any()


def test_detections_of_classes_do_not_suppress_each_other():
  found = boxes(2, 30)
  scores = np.random.default_rng(3).permutation(60).reshape(30, 2).astype(np.float32) / 60 + .01
  chosen, best, classes = detection.detections(jnp.asarray(scores), found, 8, threshold=.3)
  pairs = [(scores[i, c], c, i) for c in range(2) for i in reference(found, scores[:, c], .3)[:8]]
  for (score, c, i), row, value, label in zip(sorted(pairs)[::-1], chosen, best, classes):
    assert (value, label) == (score, c)
    np.testing.assert_array_equal(row, found[i])


def test_no_boxes_wanted():
  with pytest.raises(EffjaxError, match='nms: wanted a count of at least 1, got 0: say how many boxes to keep'):
    detection.nms(jnp.zeros((2, 4)), jnp.zeros(2), 0)
