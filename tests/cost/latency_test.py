"""Latency against float64 interpolation and enumeration; tables as files."""
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from effjax import cost, graph
from effjax.cost import Entry, LatencyTable, Op, operator
from effjax.errors import EffjaxError
from effjax.reparam import CHANNELS, Fact

X = jnp.ones((1, 9, 9, 3))
CINS, COUTS, SIDES = (1, 2, 4, 8), (2, 4, 8, 16), (2, 4, 6, 10)
KIND = ('conv', (3, 3), 1, 1, 1)


def conv(x, w, stride=1, groups=1, padding='SAME'):
  return jax.lax.conv_general_dilated(x, w, (stride,) * 2, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
                                      feature_group_count=groups)


def milliseconds(size, cin, cout):
  """Neither linear nor separable."""
  return .01 + .001 * size**2 * np.ceil(cin / 3) * np.ceil(cout / 5)


def table(kind=KIND, name='float32', drop=()):
  points = [p for p in itertools.product(SIDES, CINS, COUTS) if p not in drop]
  return LatencyTable(tuple(Entry(name, Op(*kind, (s, s), a, b), milliseconds(s, a, b)) for s, a, b in points), .25, {})


def reference(size, cin, cout):
  grid = [np.square(SIDES), CINS, COUTS]
  values = np.array([[[milliseconds(s, a, b) for b in COUTS] for a in CINS] for s in SIDES])
  return RegularGridInterpolator(grid, values, bounds_error=False, fill_value=None)([[size**2, cin, cout]])[0]


def one(cin, cout, size=9):
  return graph.profile(lambda p, x: conv(x, p), jnp.ones((3, 3, cin, cout)), jnp.ones((1, size, size, cin)))


@pytest.mark.parametrize(('size', 'cin', 'cout'), [(4, 2, 8), (9, 3, 5), (5, 7, 13), (3, 1, 16), (12, 11, 20)])
def test_it_is_multilinear_within_the_grid_and_linear_beyond(size, cin, cout):
  got = cost.latency(one(cin, cout, size), {}, table=table())
  np.testing.assert_allclose(got, .25 + reference(size, cin, cout), rtol=1e-5)


def two(p, x):
  return conv(conv(x, p['a']), p['b'])


PAIR = {'a': jnp.ones((3, 3, 3, 6)), 'b': jnp.ones((3, 3, 6, 4))}


def test_value_and_gradient_at_expected_widths():
  """A keep probability moves both the convolution that makes the channel and the one that reads it."""
  profile = graph.profile(two, PAIR, X)
  keep = np.array([.9, .2, .7, .55, 1, .3])
  want = lambda n: .25 + reference(9, 3, n) + reference(9, n, 4)
  value = jax.jit(lambda k: cost.latency(profile, {CHANNELS: Fact(keep=k)}, table=table()))
  np.testing.assert_allclose(value(jnp.asarray(keep, jnp.float32)), want(keep.sum()), rtol=1e-5)
  slope = (want(keep.sum() + .01) - want(keep.sum() - .01)) / .02
  np.testing.assert_allclose(jax.grad(value)(jnp.asarray(keep, jnp.float32)), np.full(6, slope), rtol=1e-4)


def test_hard_facts_predict_the_shrunk_network():
  keep = np.array([True, False, True, True, False, True])
  small, less = graph.shrink(two, PAIR, keep, X)
  facts = {CHANNELS: Fact(keep=jnp.asarray(keep, jnp.float32))}
  np.testing.assert_allclose(cost.latency(graph.profile(two, PAIR, X), facts, table=table()),
                             cost.latency(graph.profile(small, less, X), {}, table=table()), rtol=1e-6)


def test_it_is_the_mean_over_choices_and_bits():
  """Two operators, one of which is in 4 or 8 bits; 3 bits are held in the narrowest format that the table has."""
  fn = lambda p, x: p['c'][0] * conv(x, p['a']) + p['c'][1] * x
  found = graph.profile(fn, {'a': jnp.ones((3, 3, 3, 3)), 'c': jnp.ones(2)}, X)
  both = table()._replace(entries=table(name='int4').entries + tuple(
      e._replace(ms=2 * e.ms) for e in table(name='int8').entries))
  real = lambda *x: jnp.asarray(x, jnp.float32)
  facts = lambda choice: {'c': Fact(choice=choice), 'a': Fact(bits=real(3, 8), choice=real(.75, .25))}
  value = lambda choice: cost.latency(found, facts(choice), table=both)
  ms = reference(9, 3, 3) * 1.25
  np.testing.assert_allclose(value(real(.4, .6)), .25 + .4 * ms, rtol=1e-5)
  np.testing.assert_allclose(jax.grad(value)(real(.4, .6)), [ms, 0], rtol=1e-5)
  np.testing.assert_allclose(cost.latency(found, {'c': Fact(choice=real(1, 0))}, table=both, bits=8),
                             .25 + 2 * reference(9, 3, 3), rtol=1e-5)


def test_a_loop_counts_each_time():
  stacked = jnp.ones((5, 3, 3, 3, 3))
  scanned = graph.profile(lambda p, x: jax.lax.scan(lambda x, w: (conv(x, w), None), x, p)[0], stacked, X)
  np.testing.assert_allclose(cost.latency(scanned, {}, table=table()), .25 + 5 * reference(9, 3, 3), rtol=1e-5)


def test_points_that_are_missing_in_the_grid_are_left_out_the_farthest_first():
  """Without the corner (8, 2) either the count 8 or the count 2 goes: the one farther from the operator."""
  holes = tuple((s, 8, 2) for s in SIDES)
  np.testing.assert_allclose(cost.latency(one(3, 12), {}, table=table(drop=holes)), .25 + reference(9, 3, 12), rtol=1e-5)
  np.testing.assert_allclose(cost.latency(one(7, 12), {}, table=table(drop=holes)), .25 + reference(9, 7, 12), rtol=1e-5)


def test_a_single_measurement_is_proportional():
  lone = LatencyTable((Entry('int8', Op(*KIND, (9, 9), 3, 6), 1.), Entry('int8', Op(*KIND, (9, 9), 6, 4), 2.)), 0., {})
  half = {CHANNELS: Fact(keep=jnp.full(6, .5))}
  np.testing.assert_allclose(cost.latency(graph.profile(two, PAIR, X), half, table=lone, bits=8), 1.5, rtol=1e-6)
  np.testing.assert_allclose(cost.latency(one(3, 6, 18), {}, table=lone._replace(entries=lone.entries[:1]), bits=8), 4.,
                             rtol=1e-6)


def dilated(x, w, strides=(1, 1)):
  return jax.lax.conv_general_dilated(x, w, strides, 'SAME', rhs_dilation=(2, 2),
                                      dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


OPERATORS = {
  'conv': (lambda p, x: conv(x, p, 2), (5, 5, 3, 8), Op('conv', (5, 5), 2, 1, 1, (5, 5), 3, 8)),
  'valid': (lambda p, x: conv(x, p, 1, padding='VALID'), (3, 3, 3, 8), Op('conv', (3, 3), 1, 1, 1, (7, 7), 3, 8)),
  'depthwise': (lambda p, x: conv(x, p, 2, 3), (3, 3, 1, 6), Op('depthwise', (3, 3), 2, 1, 2, (5, 5), 1, 6)),
  'dilated': (lambda p, x: dilated(x, p), (3, 3, 3, 8), Op('conv', (3, 3), 1, 2, 1, (9, 9), 3, 8)),
  'grouped': (lambda p, x: conv(jnp.concatenate([x, x], -1), p, 1, 3), (1, 1, 2, 9),
              Op('grouped', (1, 1), 1, 1, 3, (9, 9), 2, 9)),
  'dense': (lambda p, x: x.mean((1, 2)) @ p, (3, 8), Op('dense', (1, 1), 1, 1, 1, (1, 1), 3, 8)),
  'transposed weight': (lambda p, x: p @ x.mean((1, 2))[0], (8, 3), Op('dense', (1, 1), 1, 1, 1, (1, 1), 3, 8)),
  'heads': (lambda p, x: jnp.einsum('nhwc,cij->nhwij', x, p), (3, 2, 4), Op('conv', (1, 1), 1, 1, 1, (1, 81), 3, 8)),
  'NCHW': (lambda p, x: jax.lax.conv(x.transpose(0, 3, 1, 2), p, (1, 1), 'SAME'), (8, 3, 3, 3),
           Op('conv', (3, 3), 1, 1, 1, (9, 9), 3, 8))}


@pytest.mark.parametrize('name', OPERATORS)
def test_the_operator_of_a_row(name):
  fn, shape, want = OPERATORS[name]
  (row,) = graph.profile(fn, jnp.ones(shape), X).rows
  assert operator(row) == want


def test_a_saved_table_is_the_same(tmp_path):
  made = table()._replace(machine={'cpu': 'x', 'packages': {'jax': '0'}})
  cost.save_latency_table(made, tmp_path / 't.json')
  assert cost.load_latency_table(tmp_path / 't.json') == made
  assert json.loads((tmp_path / 't.json').read_text())['columns'][0] == 'format'


FILES = {
  'text': ('milliseconds', 'JSONDecodeError'), 'other': ('{"a": 1}', 'KeyError'), 'list': ('[1]', 'TypeError'),
  'short': ('{"entries": [["int8", 1.0]], "overhead_ms": 0, "machine": {}}', 'TypeError'),
  'empty': ('{"entries": [], "overhead_ms": 0, "machine": {}}', 'wanted entries of'),
  'negative': ('{"entries": [["int8", "conv", [3, 3], 1, 1, 1, [2, 2], 1, 1, -1]], "overhead_ms": 0, "machine": {}}',
               'with milliseconds of at least 0')}


@pytest.mark.parametrize('name', FILES)
def test_a_file_that_is_no_table_is_refused(name, tmp_path):
  text, reason = FILES[name]
  (tmp_path / 't.json').write_text(text)
  with pytest.raises(EffjaxError, match=f't.json is no latency table.*{reason}'):
    cost.load_latency_table(tmp_path / 't.json')
  with pytest.raises(EffjaxError, match='absent.json is no latency table .FileNotFoundError'):
    cost.load_latency_table(tmp_path / 'absent.json')


def test_what_the_table_lacks_is_named():
  with pytest.raises(EffjaxError, match=r"no int8 conv with kernel \(3, 3\), stride 1, dilation 1 and groups 1: give effjax.export.measure"):
    cost.latency(one(3, 4), {}, table=table(), bits=8)
  found = graph.profile(lambda p, x: conv(x, p, 1, 3), jnp.ones((3, 3, 1, 3)), X)
  with pytest.raises(EffjaxError, match=r'no float32 depthwise'):
    cost.latency(found, {}, table=table())
  with pytest.raises(EffjaxError, match='has no bits in the facts and the table no float32: give bits=8'):
    cost.latency(one(3, 4), {}, table=table(name='int8'))
  with pytest.raises(EffjaxError, match=r'bits must be one of \[4, 8, 32\], got 6'):
    cost.latency(one(3, 4), {}, table=table(), bits=6)
  ops = Op(*KIND, (2, 2), 1, 1), Op(*KIND, (20, 20), 2, 2)
  apart = LatencyTable(tuple(Entry('int8', op, 1.) for op in ops), 0., {})
  with pytest.raises(EffjaxError, match=r'the sizes around \(9, 9\) of conv .* no common channel counts'):
    cost.latency(one(3, 4), {}, table=apart, bits=8)


def test_what_is_not_measured_is_named():
  up = lambda p, x: jax.lax.conv_transpose(x, p, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  with pytest.raises(EffjaxError, match=r'is a transposed convolution .\(9, 9\) to \(18, 18\).*export.latency_ms'):
    cost.latency(graph.profile(up, jnp.ones((2, 2, 3, 3)), X), {}, table=table())
  with pytest.raises(EffjaxError, match=r'has strides \(1, 2\) and dilation \(2, 2\), wanted the same along all axes'):
    cost.latency(graph.profile(lambda p, x: dilated(x, p, (1, 2)), jnp.ones((3, 3, 3, 2)), X), {}, table=table())
  attention = graph.profile(lambda p, x: (x[0, 0] * p[None]) @ x[0, 1].T, jnp.ones(3), X)
  with pytest.raises(EffjaxError, match='a product of two activations .attention. is not measured'):
    cost.latency(attention, {}, table=table())
