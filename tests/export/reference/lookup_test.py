"""Functions of one tensor: every code of the interpreter, and float64 functions within a rounding."""
import math

import jax
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.export.network import Tensor

SETS = ('xnnpack', 'builtin')
FIXED = {'logistic': (1 / 256, -128), 'tanh': (1 / 128, 0), 'softmax': (1 / 256, -128), 'log_softmax': (1 / 16, 127)}
LOWEST = ('rsqrt', 'sqrt')  # their inputs are not below zero
SETTINGS = {'gelu': ({'approximate': False}, {'approximate': True}),
            'leaky_relu': tuple({'alpha': a} for a in (.1, .01, .001, .3, 1.7, -.2, 0.))}
OPS = ('logistic', 'tanh', 'hard_swish', 'gelu', 'leaky_relu', 'elu', 'exp', 'log', 'rsqrt', 'sqrt', 'abs')
ALL = np.arange(-128, 128).astype(np.int8).reshape(1, 16, 16)
REAL = {
    'logistic': lambda x: 1 / (1 + np.exp(-x)), 'tanh': np.tanh, 'exp': np.exp, 'sqrt': np.sqrt, 'abs': np.abs,
    'hard_swish': lambda x: x * np.clip(x + 3, 0, 6) / 6, 'elu': lambda x: np.where(x < 0, np.expm1(x), x),
    'gelu': lambda x: x * (1 + np.vectorize(math.erf)(x / 2 ** .5)) / 2, 'log': lambda x: np.log(np.maximum(x, 1e-30)),
    'rsqrt': lambda x: 1 / np.sqrt(np.maximum(x, 1e-30)), 'leaky_relu': lambda x: np.where(x < 0, .1 * x, x)}


def node(one_node, op, source, output, **settings):
  return one_node(op, [Tensor('x', *source)], Tensor('y', *output), settings)


def ranges(op, random):
  """Scale and zero point of the input and of the output, drawn."""
  scale = 10 ** random.uniform(-3.5, .5)
  free = op in ('rsqrt', 'sqrt', 'exp', 'log')
  output = 10 ** random.uniform(-3, 1) if free else scale * 10 ** random.uniform(-.9, 3)
  zero = -128 if op in LOWEST else int(random.integers(-128, 128))
  single = lambda value: float(np.float32(value))
  return (single(scale), zero), FIXED.get(op, (single(output), int(random.integers(-128, 128))))


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('op', OPS)
def test_every_code_of_a_table(one_node, op, kernels):
  random = np.random.default_rng(0)
  for settings in SETTINGS.get(op, ({},) * 8):
    source, output = ranges(op, random)
    made = node(one_node, op, (ALL.shape, *source), (ALL.shape, *output), **settings)
    with jax.disable_jit():
      np.testing.assert_array_equal(made.reference([ALL], kernels), made.file([ALL], kernels))


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('op', OPS)
def test_tables_are_the_function(one_node, op, kernels):
  zero = -128 if op in (*LOWEST, 'log') else 11
  output = FIXED.get(op, (.03, -20))
  made = node(one_node, op, (ALL.shape, .02, zero), (ALL.shape, *output), **SETTINGS.get(op, ({},))[0])
  with np.errstate(over='ignore'):
    wanted = REAL[op](.02 * (ALL.astype(float) - zero)) / output[0] + output[1]
  assert np.abs(made.reference([ALL], kernels) - np.clip(wanted, -128, 127)).max() <= 1


def test_xnnpack_rounds_ties_to_even_and_builtin_away_from_zero(one_node):
  half = node(one_node, 'elu', (ALL.shape, .5, 0), (ALL.shape, 1., 0))
  codes = np.clip(ALL, 0, 127)
  both = [half.reference([codes], kernels).ravel()[-3:] for kernels in SETS]
  np.testing.assert_array_equal(both, [[62, 63, 64], [63, 63, 64]])  # 62.5, 63, 63.5
  for kernels, wanted in zip(SETS, both):
    np.testing.assert_array_equal(half.file([codes], kernels).ravel()[-3:], wanted)


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize('op', ['softmax', 'log_softmax'])
@pytest.mark.parametrize(('shape', 'scale'), [((1, 1), .1), ((1, 2, 3, 17), .05), ((1, 20, 256), .004)])
def test_sums_over_the_last_axis(one_node, op, shape, scale, kernels):
  made = node(one_node, op, (shape, float(np.float32(scale)), 5), (shape, *FIXED[op]))
  for codes in (made.codes(), [made.codes(1)[0] // 32]):
    got = made.reference(codes, kernels)
    np.testing.assert_array_equal(got, made.file(codes, kernels))
    x = scale * codes[0].astype(float)
    wanted = x - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)) - x.max(-1, keepdims=True)
    wanted = (wanted if op == 'log_softmax' else np.exp(wanted)) / FIXED[op][0] + FIXED[op][1]
    assert np.abs(got - np.clip(wanted, -128, 127)).max() <= .51


@pytest.mark.parametrize('kernels', SETS)
@pytest.mark.parametrize(('shape', 'axis'), [((1, 10), 1), ((1, 10), -1), ((1, 4, 5, 3), 2), ((1, 33, 8), 1)])
def test_argmax_takes_the_first_of_equals(one_node, shape, axis, kernels):
  made = one_node('argmax', [Tensor('x', shape, .1, 3)], Tensor('y', tuple(np.delete(shape, axis)), 1., 0, 32),
                  {'axis': axis})
  for codes in (made.codes(), [made.codes(1)[0] // 64]):
    got = made.reference(codes, kernels)
    np.testing.assert_array_equal(got, codes[0].argmax(axis))
    np.testing.assert_array_equal(got, made.file(codes, kernels))


@pytest.mark.parametrize(('op', 'output', 'said'), [
    ('logistic', (1 / 255, -128), 'output->params.scale == 1. / 256 was not true'),
    ('softmax', (1 / 256, 0), 'output->params.zero_point != -128'),
    ('log_softmax', (1 / 32, 127), r'output->params.scale != 16.0 / 256'),
    ('log_softmax', (1 / 16, 0), 'output->params.zero_point != 127'),
    ('hard_swish', (1 / 512, 0), 'output_multiplier_exponent <= 0 was not true')])
def test_ranges_that_the_builtin_kernels_refuse(one_node, op, output, said):
  with pytest.raises(EffjaxError, match=said):
    node(one_node, op, (ALL.shape, .5, 0), (ALL.shape, *output)).file([ALL], 'builtin')


@pytest.mark.parametrize(('op', 'said'), [('rsqrt', 'Rsqrt is only defined for positive values'),
                                          ('sqrt', 'Sqrt is only defined for non-negative values')])
def test_roots_stop_below_the_zero_point(one_node, op, said):
  with pytest.raises(EffjaxError, match=said):
    node(one_node, op, (ALL.shape, .5, 0), (ALL.shape, .1, 0)).file([ALL], 'builtin')
