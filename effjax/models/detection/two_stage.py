"""What a detector of two stages returns, what it is trained by, and its boxes."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from effjax.models.detection import losses
from effjax.models.detection.boxes import clip, decode, encode
from effjax.models.detection.matching import match, sample
from effjax.models.detection.nms import detections


class Found(NamedTuple):
  """Of the first stage scores and offsets of every anchor; regions made of these, `valid` where there is one; of the
  second stage logits, of which the first is the background's, and offsets of every region.
  """
  anchors: Float[Array, 'a 4']
  objectness: Float[Array, 'n a']
  offsets: Float[Array, 'n a 4']
  regions: Float[Array, 'n r 4']
  valid: Bool[Array, 'n r']
  logits: Float[Array, 'n r classes']
  deltas: Float[Array, 'n r 4']


class Losses(NamedTuple):
  """Scalars of the two stages: what is there, and where it is."""
  objectness: Float[Array, '']
  offsets: Float[Array, '']
  classes: Float[Array, '']
  deltas: Float[Array, '']


def two_stage_losses(key: Key[Array, ''], found: Found, objects: Float[Array, 'n m 4'], labels: Int[Array, 'n m'],
                     valid: Bool[Array, 'n m'], *, anchors: int = 256, regions: int = 64) -> Losses:
  """Means over the images of the losses of boxes drawn at random, whose sum trains a detector.

  Anchors are examples of an object from an IoU of .7 on, or if none overlaps it more, and of none below .3; half of
  those drawn, at most, are positive. For regions both limits are .5, and the share a quarter.

  Args:
    key: of the drawing.
    objects, labels, valid: boxes in pixels and classes from 0 on, padded, and which of them are there.
    anchors, regions: drawn per image.

  Source: Ren, He, Girshick, Sun, "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497.

  >>> box, one = jnp.array([[[0., 0., 8., 8.]]]), jnp.ones((1, 1), bool)
  >>> of = lambda *shape: jnp.zeros((1, 1, *shape))
  >>> found = Found(box[0], of(), of(4), box, one, of(3), of(4))
  >>> losses = two_stage_losses(jax.random.key(0), found, box, jnp.zeros((1, 1), int), one)
  >>> [round(float(loss), 3) for loss in losses]
  [0.693, 0.0, 1.099, 0.0]
  """
  boxes = jnp.asarray(found.anchors)

  def of_image(key, found, objects, labels, valid):
    first, second = jax.random.split(key)
    matches = match(boxes, objects, valid, positive=.7, negative=.3, best=True)
    train, positive = sample(first, matches.label, anchors, .5), matches.label == 1
    wanted = encode(objects[matches.object], boxes)
    one = (losses.objectness(found.objectness, matches.label, train),
           losses.offsets(found.offsets, wanted, positive & train, train))
    matches = match(found.regions, objects, valid)
    train = sample(second, jnp.where(found.valid, matches.label, -1), regions, .25)
    positive, wanted = matches.label == 1, encode(objects[matches.object], found.regions)
    two = (losses.classes(found.logits, jnp.where(positive, labels[matches.object] + 1, 0), train),
           losses.offsets(found.deltas, wanted, positive & train, train))
    return Losses(*one, *two)

  axes = Found(None, *(0,) * (len(Found._fields) - 1))
  keys = jax.random.split(key, len(objects))
  each = jax.vmap(of_image, (0, axes, 0, 0, 0))(keys, found, objects, labels, valid)
  return jax.tree.map(jnp.mean, each)


def detect(found: Found, shape: tuple[int, int], count: int = 100, *, threshold: float = .5) -> tuple[
    Float[Array, 'n {count} 4'], Float[Array, 'n {count}'], Int[Array, 'n {count}']]:
  """Boxes, scores and classes of every image, the best first; scores of what is none are 0.

  Args:
    shape: height and width of the images.
    threshold: IoU from which on the lower score of a class goes.

  >>> box, one = jnp.array([[[0., 0., 8., 8.]]]), jnp.ones((1, 1), bool)
  >>> of = lambda *shape: jnp.zeros((1, 1, *shape))
  >>> found = Found(box[0], of(), of(4), box, one, of(2), of(4))
  >>> detect(found, (8, 8), 1)[1]
  Array([[0.5]], dtype=float32)
  """
  def of_image(regions, valid, logits, deltas):
    probabilities = jnp.where(valid[:, None], jax.nn.softmax(logits)[:, 1:], 0)
    return detections(probabilities, clip(decode(deltas, regions), shape), count, threshold=threshold)
  return jax.vmap(of_image)(found.regions, found.valid, found.logits, found.deltas)
