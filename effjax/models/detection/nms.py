"""Non-maximum suppression, and the proposals of a region proposal network."""
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from effjax.errors import EffjaxError
from effjax.models.detection.boxes import clip, decode, iou


def nms(boxes: Float[Array, 'n 4'], scores: Float[Array, ' n'], count: int, *,
        threshold: float = .5) -> tuple[Int[Array, ' {count}'], Bool[Array, ' {count}']]:
  """The highest score, again and again, of the boxes that overlap no chosen one by more than `threshold`.

  Returns the indices of the boxes, and which of these are some: what is left over has index 0. Scores of -inf are never
  chosen. Not differentiable.

  Raises:
    EffjaxError: a count below 1.

  >>> boxes = jnp.array([[0., 0., 4., 4.], [0., 1., 4., 5.], [8., 8., 9., 9.]])
  >>> nms(boxes, jnp.array([.5, .9, .1]), 3)
  (Array([1, 2, 0], dtype=int32), Array([ True,  True, False], dtype=bool))
  """
  if count < 1:
    raise EffjaxError(f'nms: wanted a count of at least 1, got {count}: say how many boxes to keep')
  overlap = iou(boxes, boxes)

  def choose(left, _):
    best = jnp.argmax(left).astype(jnp.int32)
    there = left[best] > -jnp.inf
    gone = (overlap[best] > threshold) | (jnp.arange(len(left)) == best)
    return jnp.where(gone & there, -jnp.inf, left), (jnp.where(there, best, 0), there)
  return lax.scan(choose, scores, None, count)[1]


def proposals(scores: Float[Array, ' n'], deltas: Float[Array, 'n 4'], anchors: Float[Array, 'n 4'],
              shape: tuple[int, int], *, before: int, after: int,
              threshold: float = .7) -> tuple[Float[Array, '{after} 4'], Bool[Array, ' {after}']]:
  """Regions of one image: of the `before` anchors with the highest scores the `after` best after `nms`, clipped.

  Returns them, and which are some; what is left over is a region of no area.

  >>> regions = jnp.array([[0., 0., 4., 4.], [0., 0., 4., 4.1], [4., 4., 12., 12.]])
  >>> proposals(jnp.array([1., 2., 0.]), jnp.zeros((3, 4)), regions, (8, 8), before=3, after=2)
  (Array([[0. , 0. , 4. , 4.1],
         [4. , 4. , 8. , 8. ]], dtype=float32), Array([ True,  True], dtype=bool))
  """
  scores, order = lax.top_k(scores, min(before, len(scores)))
  boxes = clip(decode(deltas[order], anchors[order]), shape)
  index, there = nms(boxes, scores, after, threshold=threshold)
  return lax.stop_gradient(jnp.where(there[:, None], boxes[index], 0)), there


def detections(
    probabilities: Float[Array, 'r classes'], boxes: Float[Array, 'r 4'], count: int, *,
    threshold: float = .5) -> tuple[Float[Array, '{count} 4'], Float[Array, ' {count}'], Int[Array, ' {count}']]:
  """Boxes, scores and classes of one image: `nms` within each class, the best of all; scores of what is none are 0.

  Args:
    probabilities: of each class, the background left out.

  >>> boxes = jnp.array([[0., 0., 4., 4.], [0., 0., 4., 4.1]])
  >>> detections(jnp.array([[.9, .1], [.8, .7]]), boxes, 3)[1:]
  (Array([0.9, 0.7, 0. ], dtype=float32), Array([0, 1, 0], dtype=int32))
  """
  index, there = jax.vmap(lambda scores: nms(boxes, scores, count, threshold=threshold))(probabilities.T)
  scores = jnp.where(there, jnp.take_along_axis(probabilities.T, index, 1), 0)
  best, flat = lax.top_k(scores.ravel(), count)
  chosen = jnp.where((best > 0)[:, None], boxes[index.ravel()[flat]], 0)
  return chosen, best, jnp.where(best > 0, flat // count, 0).astype(jnp.int32)
