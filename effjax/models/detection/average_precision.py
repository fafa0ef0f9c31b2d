"""Average precision: how well the scores of boxes order right before wrong."""
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from effjax.models.detection.boxes import iou


def average_precision(found: Sequence[Float[np.ndarray, '_ 4']], scores: Sequence[Float[np.ndarray, '_']],
                      objects: Sequence[Float[np.ndarray, '_ 4']], *, threshold: float = .5) -> float:
  """The area under precision as a function of recall, of one class over many images.

  From the highest score on, a box is right if the object that it overlaps most does so by `threshold` and is not yet
  found. Precision at a recall is the highest at that recall or more. NaN if there are no objects.

  Args:
    found, scores, objects: for each image.
    threshold: IoU; .5 is AP50.

  Source: Everingham et al., "The Pascal visual object classes challenge", IJCV 2015: its rule since 2010.

  >>> box = np.array([[0., 0., 2., 2.]])
  >>> average_precision([box, box], [np.array([.9]), np.array([.8])], [box, box + 9.])
  0.5
  """
  rows = [(score, image, i) for image, each in enumerate(scores) for i, score in enumerate(each)]
  taken = [np.zeros(len(each), bool) for each in objects]
  right = np.array([_right(found[image][i], objects[image], taken[image], threshold)
                    for _, image, i in sorted(rows, key=lambda row: -row[0])], bool)
  total = sum(map(len, objects))
  if not total:
    return float('nan')
  precision = np.cumsum(right) / np.arange(1, len(right) + 1)
  highest = np.maximum.accumulate(precision[::-1])[::-1]
  return float(highest[right].sum() / total)


def _right(box, objects, taken, threshold):
  """Whether this box is the first one of its object, which is then taken."""
  if not len(objects):
    return False
  overlap = np.asarray(iou(jnp.float32(box)[None], jnp.float32(objects)))[0]
  best = overlap.argmax()
  if overlap[best] < threshold or taken[best]:
    return False
  taken[best] = True
  return True
