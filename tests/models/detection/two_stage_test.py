"""The losses of both stages against their parts, put together one image at a time, and the boxes that come out."""
import jax
import jax.numpy as jnp
import numpy as np

from effjax.models import detection

SHAPE, OBJECTS = (32, 32), jnp.array([[[2., 2., 14., 18.], [0., 0., 0., 0.]], [[1., 9., 20., 30.], [16., 2., 30., 12.]]])
LABELS, VALID = jnp.array([[1, 0], [0, 1]]), jnp.array([[True, False], [True, True]])


def found(seed=0):
  keys = jax.random.split(jax.random.key(seed), 5)
  anchors = detection.anchors((4, 4), 8, (8, 16), (1.,))
  regions = OBJECTS[:, :1] + jnp.array([0., 3., 8., 20.])[None, :, None]
  return detection.Found(anchors, jax.random.normal(keys[0], (2, 32)), jax.random.normal(keys[1], (2, 32, 4)),
                         detection.clip(regions, SHAPE), jnp.array([[True] * 4, [True] * 3 + [False]]),
                         jax.random.normal(keys[2], (2, 4, 3)), .1 * jax.random.normal(keys[3], (2, 4, 4)))


@jax.jit
def losses(found):
  return detection.two_stage_losses(jax.random.key(0), found, OBJECTS, LABELS, VALID, anchors=64, regions=16)


def smooth_l1(d, beta=1 / 9):
  d = np.abs(d)
  return np.where(d < beta, d**2 / (2 * beta), d - beta / 2).sum()


def first_stage(found, i):
  """All anchors that have a label train, there being few."""
  matches = detection.match(found.anchors, OBJECTS[i], VALID[i], positive=.7, negative=.3, best=True)
  label, wanted = np.asarray(matches.label), detection.encode(OBJECTS[i][matches.object], found.anchors)
  p = 1 / (1 + np.exp(-np.float64(found.objectness[i])))
  entropy = -np.where(label == 1, np.log(p), np.log(1 - p))
  away = (np.float64(found.offsets[i]) - wanted)[label == 1]
  return entropy[label >= 0].mean(), smooth_l1(away) / (label >= 0).sum()


def second_stage(found, i):
  matches, there = detection.match(found.regions[i], OBJECTS[i], VALID[i]), np.asarray(found.valid[i])
  positive, wanted = np.asarray(matches.label) == 1, detection.encode(OBJECTS[i][matches.object], found.regions[i])
  target = np.where(positive, np.asarray(LABELS[i])[matches.object] + 1, 0)
  logits = np.float64(found.logits[i])
  entropy = np.log(np.exp(logits).sum(-1)) - logits[np.arange(4), target]
  away = (np.float64(found.deltas[i]) - wanted)[positive & there]
  return entropy[there].mean(), smooth_l1(away) / there.sum()


def test_losses():
  out = losses(found())
  expected = [[*first_stage(found(), i), *second_stage(found(), i)] for i in range(2)]
  np.testing.assert_allclose(out, np.mean(expected, 0), rtol=1e-4)


def test_perfect_outputs_cost_nothing():
  sure, one = 50., found()
  matches = jax.vmap(lambda o, v: detection.match(one.anchors, o, v, positive=.7, negative=.3, best=True))(OBJECTS, VALID)
  pick = jax.vmap(lambda objects, index: objects[index])
  regions = jax.vmap(detection.match)(one.regions, OBJECTS, VALID)
  label = jnp.where(regions.label == 1, pick(LABELS, regions.object) + 1, 0)
  perfect = one._replace(
    objectness=jnp.where(matches.label == 1, sure, -sure), logits=sure * jax.nn.one_hot(label, 3),
    offsets=detection.encode(pick(OBJECTS, matches.object), jnp.broadcast_to(one.anchors, (2, 32, 4))),
    deltas=detection.encode(pick(OBJECTS, regions.object), one.regions))
  np.testing.assert_allclose(losses(perfect), 0., atol=1e-6)


def test_detect_scores_the_boxes_of_valid_regions():
  one = found()
  boxes, scores, classes = jax.jit(lambda one: detection.detect(one, SHAPE, 5, threshold=.99))(one)
  p = np.exp(np.float64(one.logits)) / np.exp(np.float64(one.logits)).sum(-1, keepdims=True)
  p = p[..., 1:] * np.asarray(one.valid)[..., None]
  moved = detection.clip(detection.decode(one.deltas, one.regions), SHAPE)
  for i in range(2):
    order = np.argsort(-p[i].ravel())[:5]
    np.testing.assert_allclose(scores[i], p[i].ravel()[order], rtol=1e-5)
    np.testing.assert_array_equal(classes[i], order % 2)
    np.testing.assert_allclose(boxes[i], moved[i][order // 2], rtol=1e-5)
