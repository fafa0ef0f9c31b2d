"""Products of two activations against the interpreter and Python's integers."""
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.export.network import Tensor

SETS = ('xnnpack', 'builtin')
SCALES = (float(np.float32(.021)), float(np.float32(.013)))


def product(one_node, leading, sizes, adjoint, scale, zeros=(3, -7, 5), **constants):
  m, k, n = sizes
  a, b = ((*lead, *(axes[::-1] if turned else axes))
          for lead, axes, turned in zip(leading, ((m, k), (k, n)), adjoint))
  output = Tensor('y', (*np.broadcast_shapes(*leading), m, n), float(np.float32(scale)), zeros[2])
  return one_node('matmul', [Tensor('a', a, SCALES[0], zeros[0]), Tensor('b', b, SCALES[1], zeros[1])], output,
                  dict(zip(('adj_x', 'adj_y'), adjoint)), **constants)


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('adjoint', [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize('leading', [((1,), (1,)), ((1, 4), (1, 4))])
def test_every_code(one_node, leading, adjoint, kernels):
  made = product(one_node, leading, (17, 33, 9), adjoint, .02)
  assert made.different(kernels) == 0


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('leading', [((1, 4), (1, 1)), ((1, 1), (1, 4)), ((1,), (1, 3)), ((1, 2, 3), (1, 1, 3))])
def test_leading_axes_broadcast(one_node, leading, kernels):
  assert product(one_node, leading, (3, 8, 5), (False, True), .01).different(kernels) == 0


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize(('sizes', 'scale'), [((1, 1, 1), .003), ((2, 3, 1), .5), ((3, 1500, 5), .1),
                                              ((5, 64, 33), 3e-5), ((5, 64, 33), 2.)])
def test_sizes_and_scales(one_node, sizes, scale, kernels):
  assert product(one_node, ((1,), (1,)), sizes, (False, False), scale, (-128, 127, -20)).different(kernels) == 0


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('place', [0, 1])
def test_constant_operand(one_node, place, kernels):
  codes = np.random.default_rng(1).integers(-128, 128, ((1, 3, 8), (1, 8, 5))[place]).astype(np.int8)
  made = product(one_node, ((1,), (1,)), (3, 8, 5), (False, False), .01, constants={place: codes})
  assert made.different(kernels) == 0


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize(('leading', 'adjoint'), [(((1,), (1,)), (False, False)), (((1, 4), (1, 4)), (False, True)),
                                                  (((1, 2, 3), (1, 1, 3)), (True, False)), (((1,), (1, 3)), (True, True))])
def test_second_operand_without_zero_point(one_node, leading, adjoint, kernels):
  assert product(one_node, leading, (17, 33, 9), adjoint, .02, (3, 0, 5)).different(kernels) == 0


@pytest.mark.parametrize(('zero', 'kernels', 'wanted'), [
    (1, 'builtin', (-2, -1, 1, 2)), (1, 'xnnpack', (-2, -1, 1, 2)), (0, 'builtin', (-2, -1, 1, 2)),
    (0, 'xnnpack', (-2, 0, 0, 2))])
def test_ties_to_even_only_in_xnnpack_without_zero_point(one_node, zero, kernels, wanted):
  four = 4 * float(np.float32(SCALES[0]) * np.float32(SCALES[1]))
  made = product(one_node, ((1,), (1,)), (4, 1, 1), (False, False), four, (0, zero, 0))
  codes = [np.int8([-6, -2, 2, 6]).reshape(1, 4, 1), np.int8([[[1 + zero]]])]  # -1.5, -0.5, 0.5, 1.5
  np.testing.assert_array_equal(made.reference(codes, kernels).ravel(), wanted)
  np.testing.assert_array_equal(made.file(codes, kernels).ravel(), wanted)


def test_more_than_five_axes_are_refused(one_node):
  with pytest.raises(EffjaxError, match='NumDimensions.lhs_data. <= 5 was not true'):
    product(one_node, ((1, 2, 3, 2),) * 2, (2, 3, 2), (False, False), .1).different('builtin')
