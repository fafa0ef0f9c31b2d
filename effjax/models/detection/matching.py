"""Which boxes are an example of which object, and which of them train."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from effjax.models.detection.boxes import iou


class Matches(NamedTuple):
  """For each box: object: the one that it overlaps most. label: 1 an example of it, 0 of none, -1 neither."""
  object: Int[Array, ' n']
  label: Int[Array, ' n']


def match(boxes: Float[Array, 'n 4'], objects: Float[Array, 'm 4'], valid: Bool[Array, ' m'], *, positive: float = .5,
          negative: float = .5, best: bool = False) -> Matches:
  """A box is an example of an object from an overlap (IoU) of `positive` on, and of none below `negative`.

  Args:
    objects, valid: padded to a fixed number, and which of them are there.
    best: whether the boxes that overlap an object most are examples of it in any case, as anchors should be.

  Source: Ren, He, Girshick, Sun, "Faster R-CNN", NeurIPS 2015, arXiv:1506.01497.

  >>> boxes = jnp.array([[0., 0., 4., 4.], [0., 2., 4., 6.], [8., 8., 9., 9.]])
  >>> match(boxes, boxes[:1], jnp.array([True]), positive=.7, negative=.3).label
  Array([ 1, -1,  0], dtype=int32)
  """
  overlap = jnp.where(valid[None], iou(boxes, objects), 0)
  found = jnp.argmax(overlap, 1)
  highest = overlap.max(1)
  label = jnp.where(highest >= positive, 1, jnp.where(highest < negative, 0, -1))
  if best:
    top = (overlap == overlap.max(0)[None]) & (overlap > 0)
    found = jnp.where(top.any(1), jnp.argmax(jnp.where(top, overlap, -1), 1), found)
    label = jnp.where(top.any(1), 1, label)
  return Matches(found.astype(jnp.int32), label.astype(jnp.int32))


def sample(key: Key[Array, ''], label: Int[Array, ' n'], count: int, share: float) -> Bool[Array, ' n']:
  """`count` boxes that train, at random: positive ones, at most `share` of all, and negative ones for the rest.

  Args:
    label: of `Matches`. There are fewer than count if there are not enough negative ones.

  >>> sample(jax.random.key(0), jnp.array([1, 1, 1, 0, 0, 0, -1]), 4, .25).astype(int)
  Array([0, 0, 1, 1, 1, 1, 0], dtype=int32)
  """
  order = jax.random.uniform(key, label.shape)
  rank = lambda chosen: jnp.argsort(jnp.argsort(jnp.where(chosen, order, 2.)))  # of those that are not chosen: behind
  positive = (label == 1) & (rank(label == 1) < int(count * share))
  return positive | (label == 0) & (rank(label == 0) < count - positive.sum())
