"""Images of another size against the interpreter and real numbers."""
import numpy as np
import pytest

SETS = 'xnnpack', 'builtin'
SIZES = [((5, 7), (10, 14)), ((7, 5), (3, 9)), ((1, 6), (4, 1)), ((13, 11), (29, 23))]
GRIDS = [(False, False), (True, False), (False, True)]


def resized(one_node, tensor, op, before, after, corners, half):
  settings = {'size': after, 'align_corners': corners, 'half_pixel': half}
  source = tensor((1, *before, 9), .1, -7)
  return one_node(op, [source], source._replace(shape=(1, *after, 9)), settings)


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('grid', GRIDS)
@pytest.mark.parametrize('case', range(len(SIZES)))
def test_bilinear(one_node, tensor, case, grid, kernels):
  assert resized(one_node, tensor, 'resize_bilinear', *SIZES[case], *grid).different(kernels) == 0


@pytest.mark.parametrize('grid', GRIDS)
@pytest.mark.parametrize('case', [1, 2])
def test_nearest(one_node, tensor, case, grid):
  assert resized(one_node, tensor, 'resize_nearest', *SIZES[case], *grid).different('xnnpack') == 0


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('size', [(2, 82), (4, 94), (3, 123), (6, 74)])
def test_nearest_counts_in_16_fraction_bits(one_node, tensor, size, kernels):
  before, after = size
  assert resized(one_node, tensor, 'resize_nearest', (before, 2), (after, 3), False, False).different(kernels) == 0


@pytest.mark.parametrize('kernels', SETS)
def test_nearest_with_both_grids(one_node, tensor, kernels):
  assert resized(one_node, tensor, 'resize_nearest', (5, 7), (9, 12), True, True).different(kernels) == 0


@pytest.mark.parametrize('kernels', SETS)
def test_bilinear_is_near_linear_interpolation(one_node, tensor, kernels):
  node = resized(one_node, tensor, 'resize_bilinear', (1, 7), (1, 14), False, True)
  codes = node.codes()
  places = (np.arange(14) + .5) / 2 - .5
  real = np.stack([np.interp(places, np.arange(7), codes[0][0, 0, :, c]) for c in range(9)], -1)
  assert np.abs(node.reference(codes, kernels)[0, 0] - real).max() <= .5


def test_nearest_repeats_pixels(one_node, tensor):
  node = resized(one_node, tensor, 'resize_nearest', (3, 4), (6, 8), False, False)
  codes = node.codes()
  np.testing.assert_array_equal(node.reference(codes, 'builtin'), codes[0].repeat(2, 1).repeat(2, 2))
