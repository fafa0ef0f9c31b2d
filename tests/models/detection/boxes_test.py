"""Boxes: overlaps by counting pixels, anchors by hand, offsets and back."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.models import detection


def drawn(seed, count, size=12):
  """Boxes with whole-numbered edges."""
  corners = np.random.default_rng(seed).integers(0, size, (count, 2, 2))
  return jnp.asarray(np.concatenate([corners.min(1), corners.max(1) + 1], -1), jnp.float32)


def mask(box, size=14):
  y0, x0, y1, x1 = map(int, box)
  out = np.zeros((size, size), bool)
  out[y0:y1, x0:x1] = True
  return out


def test_iou_counts_pixels():
  a, b = drawn(0, 12), drawn(1, 9)
  expected = [[(mask(p) & mask(q)).sum() / (mask(p) | mask(q)).sum() for q in b] for p in a]
  np.testing.assert_allclose(detection.iou(a, b), expected, rtol=1e-6)
  np.testing.assert_allclose(detection.area(a), [mask(box).sum() for box in a])


def test_boxes_without_area_overlap_nothing():
  nothing = jnp.zeros((1, 4))
  assert detection.iou(nothing, nothing)[0, 0] == 0


def test_anchors_have_their_areas_ratios_and_centres():
  found = np.asarray(detection.anchors((3, 2), 16, (32, 64), (.5, .75, 1, 4 / 3, 2)))
  assert found.shape == (3 * 2 * 2 * 5, 4)
  boxes = found.reshape(3, 2, 2, 5, 4)
  size, centre = boxes[..., 2:] - boxes[..., :2], (boxes[..., 2:] + boxes[..., :2]) / 2
  np.testing.assert_allclose(size.prod(-1), np.broadcast_to([[32.**2], [64.**2]], (3, 2, 2, 5)), rtol=1e-5)
  np.testing.assert_allclose(size[..., 0] / size[..., 1], np.broadcast_to([.5, .75, 1, 4 / 3, 2], (3, 2, 2, 5)), rtol=1e-5)
  np.testing.assert_allclose(centre[1, 0], np.broadcast_to([24., 8.], (2, 5, 2)), rtol=1e-5)


def test_decode_inverts_encode():
  boxes, anchors = drawn(2, 50), drawn(3, 50)
  np.testing.assert_allclose(detection.decode(detection.encode(boxes, anchors), anchors), boxes, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(detection.encode(anchors, anchors), 0, atol=1e-6)


def test_derivatives_of_offsets_are_finite():
  deltas = jnp.array([[1e3, -1e3, 1e3, -1e3]])
  grad = jax.grad(lambda d: detection.decode(d, jnp.array([[0., 0., 8., 8.]])).sum())(deltas)
  assert jnp.isfinite(grad).all()
  assert jnp.isfinite(detection.encode(jnp.zeros((1, 4)), jnp.array([[0., 0., 8., 8.]]))).all()


def test_no_anchors():
  with pytest.raises(EffjaxError, match=r'anchors: wanted scales and ratios, got \(\) and \(1.0,\): give one of each'):
    detection.anchors((2, 2), 16, (), (1.,))
