"""Means, sums, maxima and averages against the interpreter and real numbers."""
import numpy as np
import pytest

SETS = 'xnnpack', 'builtin'
AXES = [((1, 4, 5, 37), (1, 2)), ((1, 4, 5, 37), (1,)), ((1, 14, 15, 6), (3,)), ((1, 9, 5, 6), (1, 2, 3)),
        ((1, 49, 60), (1,)), ((1, 77, 6), (2,)), ((1, 3, 4, 5, 36), (1, 2, 3)), ((1, 3, 4, 15, 6), (2, 4))]
RATIOS = (1, 1 / 3, 1.7, .011)


def reduced(one_node, tensor, op, case, keep, ratio=1.):
  shape, axes = AXES[case]
  after = np.zeros(shape).sum(axes, keepdims=keep).shape
  output = tensor(after, .05, 7) if op == 'reduce_max' else tensor(after, .05 / ratio, (-20, 31)[case % 2])
  return one_node(op, [tensor(shape, .05, 7)], output, {'axes': axes, 'keep': keep})


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize(('op', 'case'), [
    *(('mean', case) for case in range(len(AXES))), ('sum', 0), ('sum', 2), ('sum', 7), ('reduce_max', 1),
    ('reduce_max', 2), ('reduce_max', 7)])
def test_axes(one_node, tensor, op, case, kernels):
  ratio = RATIOS[case % len(RATIOS)] / (1 if op == 'mean' else 10)
  assert reduced(one_node, tensor, op, case, keep=case % 2 == 0, ratio=ratio).different(kernels, case) == 0


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('keep', [False, True])
def test_mean_of_an_image_between_two_codes(one_node, tensor, keep, kernels):
  node = one_node('mean', [tensor((1, 2, 3, 4001), .05, 7)], tensor((1, 1, 1, 4001) if keep else (1, 4001), .05, -3),
                  {'axes': (1, 2), 'keep': keep})
  assert node.different(kernels) == 0


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('op', ['mean', 'sum'])
@pytest.mark.parametrize('case', [0, 4])
def test_near_real_numbers(one_node, tensor, op, case, kernels):
  node = reduced(one_node, tensor, op, case, keep=True, ratio=1.7 if op == 'mean' else .03)
  codes, axes = node.codes(), AXES[case][1]
  source, output = node.network.tensors
  real = getattr(np, op)((codes[0].astype(float) - source.zero_point) * source.scale, axes, keepdims=True)
  expected = np.clip(real / output.scale + output.zero_point, -128, 127)
  assert np.abs(node.reference(codes, kernels) - expected).max() < 1.01  # the image's kernel rounds twice


def pooled(one_node, tensor, op, size, window, strides, same, **given):
  """A pool with TensorFlow's padding."""
  after = [-(-n // s) if same else (n - w) // s + 1 for n, w, s in zip(size, window, strides)]
  missing = [max((m - 1) * s + w - n, 0) if same else 0 for n, m, w, s in zip(size, after, window, strides)]
  settings = {'window': window, 'strides': strides, 'padding': tuple((k // 2, k - k // 2) for k in missing)}
  range_ = tensor((1, *size, 17), 6 / 100.5, -30)
  return one_node(op, [range_], range_._replace(shape=(1, *after, 17)), settings, **given)


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('op', ['max_pool', 'average_pool'])
@pytest.mark.parametrize(('size', 'window', 'strides', 'same', 'activation'), [
    ((9, 11), (3, 3), (2, 2), True, ''), ((7, 7), (7, 6), (1, 2), False, 'relu'),
    ((5, 6), (1, 1), (2, 2), True, 'relu6'), ((6, 5), (4, 2), (3, 1), True, 'relu_n1_to_1'),
    ((6, 5), (1, 1), (1, 1), False, 'relu6')])
def test_windows(one_node, tensor, op, size, window, strides, same, activation, kernels):
  node = pooled(one_node, tensor, op, size, window, strides, same, activation=activation)
  assert node.different(kernels) == 0


def test_average_pool_rounds_halves_away_from_zero(one_node, tensor):
  node = pooled(one_node, tensor, 'average_pool', (1, 2), (1, 2), (1, 1), False)
  codes = np.zeros((1, 1, 2, 17), np.int8)
  codes[0, 0, 0, :4], codes[0, 0, 1, :4] = [1, -1, 3, -3], [0, 0, 0, 0]
  assert node.reference([codes], 'builtin')[0, 0, 0, :4].tolist() == [1, -1, 2, -2]
