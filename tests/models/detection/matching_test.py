"""Matching and sampling against loops over all pairs."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.models import detection


def boxes(seed, count, size=12):
  corners = np.random.default_rng(seed).uniform(0, size, (count, 2, 2)).astype(np.float32)
  return jnp.asarray(np.concatenate([corners.min(1), corners.max(1) + 1], -1))


def reference(overlap, positive, negative, best):
  """[(object, label)] by going through boxes and then objects."""
  out = []
  for row in overlap:
    high = max(row)
    out.append([list(row).index(high), 1 if high >= positive else 0 if high < negative else -1])
  for j in range(overlap.shape[1]) if best else ():
    high = overlap[:, j].max()
    for i in range(len(overlap)):
      if high > 0 and overlap[i, j] == high and (out[i][1] != 2 or overlap[i, out[i][0]] < high):
        out[i] = [j, 2]
  return [(j, min(label, 1)) for j, label in out]


@pytest.mark.parametrize('best', [False, True])
def test_match(best):
  for seed in range(5):
    found, objects = boxes(seed, 40), boxes(100 + seed, 4)
    valid = jnp.array([True, True, False, True])
    matches = detection.match(found, objects, valid, positive=.6, negative=.3, best=best)
    overlap = np.asarray(detection.iou(found, objects)) * np.asarray(valid)
    expected = reference(overlap, .6, .3, best)
    assert [(int(j), int(label)) for j, label in zip(*matches)] == expected
    assert not best or all(1 in matches.label[matches.object == j] for j in (0, 1, 3))


def test_without_objects_all_is_background():
  none = jnp.zeros((2, 4)), jnp.zeros(2, bool)
  matches = detection.match(boxes(0, 6), *none, positive=.7, negative=.3, best=True)
  assert not matches.label.any()


@pytest.mark.parametrize(('positives', 'negatives', 'wanted'), [(20, 50, (8, 24)), (3, 50, (3, 29)), (20, 10, (8, 10)),
                                                                (0, 50, (0, 32))])
def test_sample_takes_a_share_and_fills_up(positives, negatives, wanted):
  label = jax.random.permutation(jax.random.key(7), jnp.array([1] * positives + [0] * negatives + [-1] * 5))
  for seed in range(3):
    chosen = detection.sample(jax.random.key(seed), label, 32, .25)
    assert ((chosen & (label == 1)).sum(), (chosen & (label == 0)).sum(), chosen[label == -1].sum()) == (*wanted, 0)


def test_sample_is_fair():
  label = jnp.array([1] * 4 + [0] * 12)
  chosen = jax.vmap(lambda key: detection.sample(key, label, 8, .25))(jax.random.split(jax.random.key(0), 2000))
  np.testing.assert_allclose(chosen.mean(0), .5, atol=.05)
