"""Average precision against curves drawn by hand."""
import numpy as np
import pytest

from effjax.models.detection import average_precision

BOX, FAR = np.array([[0., 0., 4., 4.]]), np.array([[20., 20., 24., 24.]])


def of(*images):
  """AP of images given as (found, scores, objects)."""
  found, scores, objects = zip(*images)
  return average_precision(found, [np.array(each, float) for each in scores], objects)


def test_perfect_and_hopeless():
  assert of((BOX, [.9], BOX), (FAR, [.1], FAR)) == 1
  assert of((FAR, [.9], BOX)) == 0
  assert of((np.zeros((0, 4)), [], BOX)) == 0


def test_a_wrong_box_before_a_right_one():
  assert of((np.concatenate([FAR, BOX]), [.9, .8], BOX)) == .5


def test_a_second_box_of_an_object_is_wrong():
  """Right, wrong, right: precision 1 up to recall 1/2, then 2/3."""
  assert of((np.concatenate([BOX, BOX]), [.9, .8], BOX), (FAR, [.7], FAR)) == pytest.approx((1 + 2 / 3) / 2)


def test_precision_is_the_highest_from_there_on():
  """Wrong, right, right: precision 0, 1/2, 2/3, of which 2/3 counts for both."""
  assert of((np.concatenate([FAR, BOX]), [.9, .8], BOX), (FAR, [.7], FAR)) == pytest.approx(2 / 3)


def test_images_without_objects_or_boxes():
  none = np.zeros((0, 4))
  assert of((BOX, [.9], none), (BOX, [.8], BOX), (none, [], none)) == .5
  assert np.isnan(of((BOX, [.9], none)))


def test_threshold():
  half = np.array([[0., 0., 4., 2.]])
  assert average_precision([half], [np.ones(1)], [BOX]) == 1
  assert average_precision([half], [np.ones(1)], [BOX], threshold=.51) == 0
