"""Sums, products, clamps and changes of range against the interpreter, Python integers and real numbers."""
from fractions import Fraction
from math import floor

import numpy as np
import pytest

SETS = 'xnnpack', 'builtin'
OPS = {'add': np.add, 'sub': np.subtract, 'mul': np.multiply}
SHAPES = [((1, 5, 7, 17), (1, 5, 7, 17)), ((1, 4, 5, 33), (1, 1, 1, 33)), ((1, 1, 1, 17), (1, 4, 5, 17)),
          ((1, 4, 5, 17), (1, 4, 5, 1)), ((1, 9, 33), (1, 1, 1)), ((1, 6, 6, 33), (1,)), ((1, 5, 1), (1, 1, 33)),
          ((1, 2, 3, 4, 17), (1, 2, 1, 4, 17)), ((1, 3, 1, 17), (1, 1, 5, 17)), ((1, 1), (1, 1))]


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize(('op', 'case'), [
    *(('add', case) for case in range(len(SHAPES))), ('sub', 1), ('sub', 9), ('mul', 2), ('mul', 4), ('mul', 8)])
def test_broadcasting(one_node, tensor, op, kernels, case):
  random = np.random.default_rng(case)
  shapes, activation = SHAPES[case], ('', 'relu', 'relu6', 'relu_n1_to_1')[case % 4]
  scales, zeros = np.exp(random.uniform(-3, 0, 2)), random.integers(-128, 128, 3).tolist()
  top = (scales.prod() if op == 'mul' else scales.max()) * random.uniform(.5, 20)
  sources = [tensor(*given) for given in zip(shapes, scales, zeros[:2])]
  node = one_node(op, sources, tensor(np.broadcast_shapes(*shapes), top, zeros[2]), activation=activation)
  assert node.different(kernels, case) == 0


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('op', OPS)
def test_constant(one_node, tensor, op, kernels):
  codes = np.random.default_rng(0).integers(-128, 128, (1, 1, 1, 17)).astype(np.int8)
  sources, output = [tensor((1, 6, 7, 17), .04, 11), tensor(codes.shape, .02, -7)], tensor((1, 6, 7, 17), .05, 3)
  assert one_node(op, sources, output, constants={1: codes}).different(kernels) == 0
  number = sources[1]._replace(shape=(1, 1, 1, 1))
  assert one_node(op, (number, sources[0]), output, constants={0: codes[..., :1]}).different(kernels) == 0


@pytest.mark.parametrize(('op', 'ratios'), [
    ('add', (2 ** -11, .5)), ('sub', (2 ** 8, 1)), ('add', (2 ** 7.9, 2 ** -10)), ('mul', (2 ** -9, 2 ** -8)),
    ('mul', (2 ** 4, 2 ** 4)), ('mul', (1, 2))])
def test_ends_of_what_xnnpack_takes(one_node, tensor, op, ratios):
  shape = (1, 9, 17)
  sources = [tensor(shape, .5 * ratios[0], 5), tensor(shape, ratios[1] * (2 if op == 'mul' else .5), -90)]
  assert one_node(op, sources, tensor(shape, .5, 9)).different('xnnpack') == 0


@pytest.mark.parametrize('op', OPS)
@pytest.mark.parametrize('kernels', SETS)
def test_near_real_numbers(one_node, tensor, op, kernels):
  shape = (1, 40, 17)
  sources = [tensor(shape, .03, 4), tensor(shape, .05, -20)]
  output = tensor(shape, .07, 10)
  node = one_node(op, sources, output)
  codes = node.codes()
  real = OPS[op](*((q.astype(float) - t.zero_point) * t.scale for q, t in zip(codes, sources)))
  expected = np.clip(real / output.scale + output.zero_point, -128, 127)
  assert np.abs(node.reference(codes, kernels) - expected).max() < .52


def test_builtin_difference_in_python_integers(one_node, tensor):
  sources, output = [tensor((1, 300), .031, 3), tensor((1, 300), .017, -9)], tensor((1, 300), .043, 5)
  node = one_node('sub', sources, output)
  codes = node.codes()

  def multiplied(value, ratio):
    fraction, exponent = np.frexp(ratio)
    high = (value * floor(fraction * 2 ** 31 + .5) + 2 ** 30) >> 31
    exact = abs(Fraction(high) * Fraction(2) ** int(exponent))
    return floor(exact + Fraction(1, 2)) * (1 if high > 0 else -1)

  def subtracted(a, b):
    a, b = (multiplied((int(q) - t.zero_point) << 20, t.scale / (2 * .031_000_000_327_825_546))
            for q, t in zip((a, b), sources))
    return min(max(multiplied(a - b, 2 * sources[0].scale / (2 ** 20 * output.scale)) + 5, -128), 127)

  expected = [subtracted(*pair) for pair in zip(*(x[0] for x in codes))]
  assert node.reference(codes, 'builtin')[0].tolist() == expected


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('ratio', [2 ** -9, 2 ** -8, .49, 2 ** 7, 2 ** 7.5])
def test_quantize(one_node, tensor, ratio, kernels):
  node = one_node('quantize', [tensor((1, 7, 59), .1 * ratio, -17)], tensor((1, 7, 59), .1, 30))
  assert node.different(kernels) == 0


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('activation', ['relu', 'relu6', 'relu_n1_to_1'])
def test_clamp(one_node, tensor, activation, kernels):
  node = one_node('clamp', [tensor((1, 7, 59), .05, -17)], tensor((1, 7, 59), .031, -60), activation=activation)
  assert node.different(kernels) == 0


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize(('steps', 'zero_point'), [(12.5, -128), (80.5, -17), (100.5, -18)])
def test_an_activation_ends_between_two_codes(one_node, tensor, steps, zero_point, kernels):
  range_ = tensor((1, 64), 6 / steps, zero_point)
  assert one_node('add', [range_, range_._replace()], range_, activation='relu6').different(kernels) == 0
