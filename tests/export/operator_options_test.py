import itertools

import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.export.network import Node, Tensor
from effjax.export.operator_options import OPERATORS, SAME, VALID, crop_padding, padding


def tflite_crop(size, kernel, stride, made, same):
  """What TFLite crops before the `made` positions (ComputePadding of the output), None if it refuses the shape."""
  if not same:
    return 0 if made >= kernel and (made - kernel) // stride + 1 == size else None
  return max((size - 1) * stride + kernel - made, 0) // 2 if -(-made // stride) == size else None


@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('kernel', [1, 2, 3, 4, 5])
def test_crops_are_those_of_tflite(stride, kernel):
  size = 4
  for before, after in itertools.product(range(kernel), range(-stride - 1, kernel)):
    made = (size - 1) * stride + kernel - before - after
    fits = [same for same in (False, True) if tflite_crop(size, kernel, stride, made, same) == before]
    expected = None if not fits else VALID if False in fits else SAME
    assert crop_padding((kernel, 1), (stride, 1), ((before, after), (0, 0))) == expected


def layer(op, rank=4, activation='', **settings):
  shape = (1, *[4] * (rank - 1))
  return Node(op, (0,), Tensor('y', shape, 1., 0), activation, settings, np.zeros((3, 3, 4, 4), np.int8))


def test_a_crop_that_the_operator_cannot_do_is_named():
  node = layer('transpose_conv', strides=(2, 2), padding=((1, 0), (0, 0)))
  with pytest.raises(EffjaxError, match=r"tflite: 'y': TRANSPOSE_CONV cannot crop \(\(1, 0\), \(0, 0\)\), wanted what "
                                        'SAME or VALID crops: keep the full output and slice it'):
    padding(node)


@pytest.mark.parametrize(('node', 'operator'), [
    (layer('conv', groups=1), ('CONV_2D', 3)), (layer('conv', groups=2), ('CONV_2D', 6)),
    (layer('conv', groups=2)._replace(bits=4), ('CONV_2D', 7)),
    (layer('transpose_conv'), ('TRANSPOSE_CONV', 3)), (layer('transpose_conv', 4, 'relu'), ('TRANSPOSE_CONV', 4)),
    (layer('transpose'), ('TRANSPOSE', 2)), (layer('transpose', 5), ('TRANSPOSE', 4)),
    (layer('transpose', 6), ('TRANSPOSE', 6)), (layer('pad'), ('PAD', 2)), (layer('pad', 5), ('PAD', 4)),
    (layer('pad', 5, lowest=True), ('PADV2', 4)), (layer('slice', 5), ('SLICE', 5)),
    (layer('slice', strides=(1, 1, 2, 1)), ('STRIDED_SLICE', 2)),
    (layer('slice', 5, strides=(1, 1, 2, 1, 1)), ('STRIDED_SLICE', 4))])
def test_versions_grow_with_what_is_used(node, operator):
  assert OPERATORS[node.op](node, [node.output], 1) == operator
