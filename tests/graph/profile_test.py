"""The profile against counts by hand, the survey's counts of the literature's networks, and XLA's own analysis."""
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import cost, graph
from effjax.graph import profile as profile_of
from effjax.graph.profile import counts, groups, intensity, macs, size
from effjax.reparam import CHANNELS, Fact

spec = importlib.util.spec_from_file_location('survey_networks', pathlib.Path(__file__).with_name('survey_networks.py'))
networks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(networks)

S = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)


def conv(stride=1, padding='VALID', **more):
  return lambda p, x: jax.lax.conv_general_dilated(x, p['w'], (stride, stride), padding,
                                                   dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **more)


def transposed(padding):
  return lambda p, x: jax.lax.conv_transpose(x, p['w'], (2, 2), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def attention(p, x):
  """One example of 5 tokens, 2 heads of 3."""
  q, k, v = (jnp.einsum('td,dhk->thk', x, p[name]) for name in 'qkv')
  weights = jax.nn.softmax(jnp.einsum('thk,shk->hts', q, k), -1)
  return jnp.einsum('thk,hkd->td', jnp.einsum('hts,shk->thk', weights, v), p['o'])


def pooled(p, x):
  x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')
  return jnp.mean(x, (1, 2)) @ p['w']


# What is done: (path, kind, MACs, parameters, entries read, entries written) of each operation.
IMAGE, KERNEL = S(2, 8, 8, 4), lambda *shape: {'w': S(*shape)}
HAND = {
    'conv': (conv(), KERNEL(3, 3, 4, 6), IMAGE, [('w', 'conv', 72 * 9 * 4 * 6, 216, 512, 72 * 6)]),
    'padded': (conv(padding='SAME'), KERNEL(3, 3, 4, 6), IMAGE, [('w', 'conv', 128 * 9 * 4 * 6, 216, 512, 128 * 6)]),
    'strided': (conv(2, 'SAME'), KERNEL(3, 3, 4, 6), IMAGE, [('w', 'conv', 32 * 9 * 4 * 6, 216, 512, 32 * 6)]),
    'dilated': (conv(rhs_dilation=(2, 2)), KERNEL(3, 3, 4, 6), IMAGE, [('w', 'conv', 32 * 9 * 4 * 6, 216, 512, 192)]),
    'depthwise': (conv(feature_group_count=4), KERNEL(3, 3, 1, 8), IMAGE,
                  [('w', 'depthwise', 72 * 9 * 8, 72, 512, 72 * 8)]),
    'grouped': (conv(feature_group_count=2), KERNEL(3, 3, 2, 6), IMAGE,
                [('w', 'grouped', 72 * 9 * 2 * 6, 108, 512, 72 * 6)]),
    # Each of the 128 positions that are read meets each tap once, whatever is cut off afterwards.
    'transposed': (transposed('VALID'), KERNEL(3, 3, 4, 6), IMAGE,
                   [('w', 'conv', 128 * 9 * 4 * 6, 216, 512, 2 * 17 * 17 * 6)]),
    'transposed and cut': (transposed('SAME'), KERNEL(3, 3, 4, 6), IMAGE,
                           [('w', 'conv', 128 * 9 * 4 * 6, 216, 512, 2 * 16 * 16 * 6)]),
    'dense': (lambda p, x: x @ p['w'], KERNEL(5, 7), S(3, 5), [('w', 'dense', 105, 35, 15, 21)]),
    'one array of parameters': (lambda p, x: x @ p, S(5, 7), S(3, 5), [('', 'dense', 105, 35, 15, 21)]),
    'batched product of weights': (lambda p, x: jnp.einsum('bij,bjk->bik', x, p['w']), KERNEL(4, 5, 6), S(4, 3, 5),
                                   [('w', 'dense', 4 * 3 * 5 * 6, 120, 60, 72)]),
    'product of activations': (lambda p, x: jnp.einsum('bij,bkj->bik', p['w'] * x, jnp.sin(x)), KERNEL(1, 1, 1), S(4, 3, 5),
                               [(None, 'matmul', 4 * 3 * 5 * 3, 0, 2 * 60, 36)]),
    'attention': (attention, {name: S(6, 2, 3) for name in 'qkv'} | {'o': S(2, 3, 6)}, S(5, 6), [
        *[(name, 'dense', 5 * 6 * 6, 36, 30, 30) for name in 'qkv'], (None, 'matmul', 2 * 5 * 5 * 3, 0, 60, 50),
        (None, 'reduce', 0, 0, 50, 10), (None, 'reduce', 0, 0, 50, 10),  # softmax: maximum and sum
        (None, 'matmul', 2 * 5 * 5 * 3, 0, 80, 30), ('o', 'dense', 5 * 6 * 6, 36, 30, 30)]),
    'pooling': (pooled, KERNEL(4, 3), IMAGE, [
        (None, 'pool', 0, 0, 512, 128), (None, 'reduce', 0, 0, 128, 8), ('w', 'dense', 24, 12, 8, 6)]),
    'embedding': (lambda p, x: p['t'][x], {'t': S(10, 6)}, jax.ShapeDtypeStruct((3,), jnp.int32),
                  [('t', 'gather', 0, 60, 3, 18)]),
    'gather': (lambda p, x: x[:, np.array([0, 3])] @ p['w'], KERNEL(2, 3), S(4, 5), [
        (None, 'gather', 0, 0, 8, 8), ('w', 'dense', 24, 6, 8, 12)]),
}


@pytest.mark.parametrize('name', HAND)
def test_what_each_operation_does_as_counted_by_hand(name):
  fn, params, x, want = HAND[name]
  found = profile_of(fn, params, x)
  assert [(row.path, row.kind, *counts(row)) for row in found.ops] == want
  assert found.rows == tuple(row for row in found.ops if counts(row).macs)
  np.testing.assert_array_equal(macs(found.rows), [counts(row).macs for row in found.rows])


SURVEY = {  # multiply-accumulates of convolutions and products, parameters with BatchNorm's affine part
    'vgg16': (15_470_264_320, 138_357_544),  # torchvision 0.28, as all but MobileNetV1: Keras 3.15
    'resnet18': (1_814_073_344, 11_689_512),
    'resnet50': (4_089_184_256, 25_557_032),
    'mobilenet_v1': (568_740_352, 4_231_976),
    'mobilenet_v2': (300_774_272, 3_504_872),
    'shufflenet_v2_x1_0': (144_907_992, 2_278_604),
    'densenet121': (2_834_161_664, 7_978_856),
    'squeezenet1_0': (818_924_576, 1_248_424),
    'squeezenet1_1': (349_151_936, 1_235_496)}


@pytest.mark.parametrize('name', SURVEY)
def test_networks_of_the_literature_to_the_unit(name):
  found = profile_of(*networks.build(name))
  assert (sum(counts(row).macs for row in found.ops), sum(map(size, found.leaves.values()))) == SURVEY[name]
  weights = sum(counts(row).parameters for row in found.ops)
  assert weights == sum(size(axes) for path, axes in found.leaves.items() if path.endswith('kernel'))


def valid(extent, made, k, stride=1, pad=0):
  """Pairs of an output position and a tap that read the input and not its padding, along one axis."""
  at = np.arange(made)[:, None] * stride - pad + np.arange(k)
  return ((at >= 0) & (at < extent)).sum()


# XLA's FLOPs beside two for each multiply-accumulate: entries of additions and maxima; and what it leaves out.
XLA = {
    **{name: (*HAND[name][:3], 0) for name in ('conv', 'dilated', 'depthwise', 'grouped', 'transposed', 'dense',
                                               'batched product of weights')},
    # Taps on the padding: XLA does not count them, all others do.
    'padded': (*HAND['padded'][:3], 2 * (2 * valid(8, 8, 3, pad=1)**2 - 128 * 9) * 4 * 6),
    'strided': (*HAND['strided'][:3], 2 * (2 * valid(8, 4, 3, 2)**2 - 32 * 9) * 4 * 6),
    # Of the 3 x 3 outputs of an entry in the last row or column, one row or column is cut off.
    'transposed and cut': (*HAND['transposed and cut'][:3], 2 * 2 * 4 * 6 * ((3 * 8 - 1)**2 - (3 * 8)**2)),
    'bias and ReLU': (lambda p, x: jax.nn.relu(x @ p['w'] + p['b']), {'w': S(5, 7), 'b': S(1, 7)}, S(3, 5), 21 + 21),
    'sum': (lambda p, x: jnp.sum(x @ p['w'], 1), KERNEL(5, 7), S(3, 5), 3 * (7 - 1)),
    # The body of a loop once, with its counter's addition and comparison.
    'scan': (lambda p, x: jax.lax.scan(lambda h, w: (h @ w, None), x, p['w'])[0], KERNEL(3, 5, 5), S(4, 5),
             2 * 4 * 5 * 5 * (1 - 3) + 2),
}


@pytest.mark.parametrize('name', XLA)
def test_flops_of_xla_within_the_documented_difference(name):
  fn, params, x, other = XLA[name]
  flops = jax.jit(fn).lower(params, x).cost_analysis()['flops']
  assert flops == 2 * sum(counts(row).macs for row in profile_of(fn, params, x).rows) + other


STACK = {'first': S(3, 4), 'stack': {'a': S(3, 4, 8), 'b': S(3, 8, 4)}, 'last': S(4, 2)}


def block(h, p):
  return h + jax.nn.relu(h @ p['a']) @ p['b']


def scanned(p, x):
  h, _ = jax.lax.scan(lambda h, layer: (block(h, layer), None), x @ p['first'], p['stack'])
  return h @ p['last']


def unrolled(p, x):
  h = x @ p['first']
  for i in range(3):
    h = block(h, jax.tree.map(lambda w, i=i: w[i], p['stack']))
  return h @ p['last']


def test_a_scan_costs_what_its_iterations_cost_one_by_one():
  one, other = profile_of(scanned, STACK, S(1, 3)), profile_of(unrolled, STACK, S(1, 3))
  assert [(row.path, row.count, row.stored) for row in one.rows] == [
      ('first', 1, 1), ('stack/a', 3, 3), ('stack/b', 3, 3), ('last', 1, 1)]
  total = lambda found: np.sum([counts(row) for row in found.rows], 0).tolist()
  assert total(one) == total(other) == [12 + 3 * 64 + 8, 12 + 3 * 64 + 8, 3 + 3 * 12 + 4, 4 + 3 * 12 + 2]
  keep = np.ones(graph.channels(scanned, STACK, S(1, 3)).size, bool)
  keep[[0, 5, 6]] = False
  facts = {CHANNELS: Fact(keep=jnp.asarray(keep, jnp.float32))}
  for each in (cost.macs, cost.bitops, cost.flash_bytes, cost.peak_ram):
    assert float(each(one, {})) == float(each(other, {})), each.__name__
    assert float(each(one, facts)) < float(each(one, {})), each.__name__
  # int32 bias and float32 scale of each output channel of each layer
  assert float(cost.flash_bytes(one, {})) == 4 * (12 + 3 * 64 + 8) + 8 * (4 + 3 * (8 + 4) + 2)


def test_scans_within_scans():
  """Outer constants are read in every iteration of the inner one; the stack of stacks is 2 * 3 weights."""
  def fn(p, x):
    def inner(h, w):
      return h @ w @ p['shared'], None

    def outer(h, layer):
      h, _ = jax.lax.scan(inner, h, layer['stack'])
      return jax.lax.scan(lambda h, _: (h @ layer['one'], None), h, None, 5)[0], None
    return jax.lax.scan(outer, x, p['layers'])[0]

  params = {'shared': S(4, 4), 'layers': {'stack': S(2, 3, 4, 4), 'one': S(2, 4, 4)}}
  found = profile_of(fn, params, S(1, 4))
  assert [(row.path, row.count, row.stored) for row in found.ops] == [
      ('layers/stack', 6, 6), ('shared', 6, 1), ('layers/one', 10, 2)]
  assert [counts(row).macs for row in found.ops] == [6 * 16, 6 * 16, 10 * 16]
  assert sum(counts(row).parameters for row in found.ops) == sum(map(size, found.leaves.values()))


def test_a_recurrent_network():
  """Inputs are scanned, states carried, weights constant: the products run at every one of 7 times."""
  def fn(p, x):
    def cell(state, x):
      h, c = state
      i, f, g, o = jnp.split(x @ p['wx'] + h @ p['wh'], 4, -1)
      c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
      h = jax.nn.sigmoid(o) * jnp.tanh(c)
      return (h, c), h
    zero = jnp.zeros((1, 5))
    return jax.lax.scan(cell, (zero, zero), x)[1] @ p['out']

  found = profile_of(fn, {'wx': S(3, 20), 'wh': S(5, 20), 'out': S(5, 2)}, S(7, 1, 3))
  assert [(row.path, row.count, row.stored, *counts(row)) for row in found.ops] == [
      ('wx', 7, 1, 7 * 60, 60, 7 * 3, 7 * 20), ('wh', 7, 1, 7 * 100, 100, 7 * 5, 7 * 20),
      ('out', 1, 1, 70, 10, 35, 14)]
  # The sequence, all results, c, and both products with their sum, when h has been read.
  assert float(cost.peak_ram(found, {})) == 21 + 35 + 5 + 3 * 20


# Bytes at the worst step, by hand; x is S(1, 4), the iterations 3.
SCANS = {
    'in place': (lambda p, x: jax.lax.scan(lambda h, _: (jnp.sin(h), None), x, None, 3)[0], 4),
    'the start is read again': (lambda p, x: jax.lax.scan(lambda h, _: (jnp.sin(h), None), x, None, 3)[0] * x, 4 + 4 + 4),
    'a constant is read again': (  # x and sin x of each iteration, what is carried, the new one
        lambda p, x: jax.lax.scan(lambda h, _: (h + jnp.sin(x), None), x * p['w'], None, 3)[0], 4 + 4 + 4 + 4),
    'results are stacked': (lambda p, x: jax.lax.scan(lambda h, _: (jnp.sin(h),) * 2, x, None, 3)[1], 4 + 12),
    'what was carried is a result': (  # each iteration gives h and sin h
        lambda p, x: jax.lax.scan(lambda h, _: (jnp.sin(h), h), x, None, 3)[1], 4 + 4 + 12),
    'a counter is nothing to the result': (
        lambda p, x: jax.lax.scan(lambda h, _: ((h[0] + 1, jnp.sin(h[1])), None), (0, x), None, 3)[0][1], 4),
}


@pytest.mark.parametrize('name', SCANS)
def test_memory_of_a_scan(name):
  fn, want = SCANS[name]
  found = profile_of(lambda p, x: fn(p, x * p['w']), {'w': S(1, 4)}, S(1, 4))
  assert float(cost.peak_ram(found, {})) == want


REUSED = {  # what is needed at the worst step; x has 3 entries, a product with `a` 10, with `b` or `c` 6
    'only its activation is read': (lambda p, h: jax.nn.relu(h) @ p['b'], 10 + 6),
    'a gate': (lambda p, h: (h * jax.nn.sigmoid(h)) @ p['b'], 10 + 6),
    'it and its activation are read': (lambda p, h: jax.nn.relu(h) @ p['b'] + h @ p['c'], 10 + 10 + 6),
    'a residual around an activation': (lambda p, h: h[:, :4] + jax.nn.relu(h) @ p['b'] @ p['b'][:4].T, 4 + 10 + 6),
    'its shape alone is another': (lambda p, h: h.reshape(10) @ p['b'] + (h @ p['c'])[0], 10 + 6 + 6),
    'it and two activations are read': (
        lambda p, h: jnp.concatenate([h, jnp.sin(h), jnp.cos(h)]) @ p['b'], 30 + 30),
}


@pytest.mark.parametrize('name', REUSED)
def test_what_is_read_again_keeps_its_place(name):
  """As in pre-activation and dense networks, where a tensor is used with and without its normalisation."""
  fn, want = REUSED[name]
  found = profile_of(lambda p, x: fn(p, x @ p['a']), {'a': S(3, 10), 'b': S(10, 6), 'c': S(10, 6)}, S(1, 3))
  assert float(cost.peak_ram(found, {})) == want


def test_choices_around_and_within_a_scan():
  def fn(p, x):
    c = p['mix']['choice']
    body = lambda h, layer: (h + layer['choice'][0] * (h @ layer['w']) + layer['choice'][1] * jnp.sin(h), None)
    return (c[0] * jax.lax.scan(body, x @ p['a'], p['stack'])[0] + c[1] * (x @ p['b'])) @ p['d']

  params = {'mix': {'choice': S(2)}, 'stack': {'w': S(3, 4, 4), 'choice': S(3, 2)}, 'a': S(4, 4), 'b': S(4, 4),
            'd': S(4, 2)}
  rows = {row.path: row.guards for row in profile_of(fn, params, S(1, 4)).rows}
  assert rows['a'] == (('mix/choice', 0),) and rows['b'] == (('mix/choice', 1),) and rows['d'] == ()
  assert ('mix/choice', 0) in rows['stack/w']


def test_what_no_result_needs_is_not_there():
  def body(h, layer):
    a, b = h
    return (a @ layer['a'], b @ layer['b']), b @ layer['c']
  fn = lambda p, x: jax.lax.scan(body, (x, x), p)[0][0]
  found = profile_of(fn, {name: S(3, 4, 4) for name in 'abc'}, S(1, 4))
  assert [row.path for row in found.ops] == ['a']
  crossed = lambda p, x: jax.lax.scan(lambda h, layer: ((h[1] @ layer['a'], h[0] @ layer['b']), None), (x, x), p)[0][0]
  assert [row.path for row in profile_of(crossed, {name: S(3, 4, 4) for name in 'ab'}, S(1, 4)).ops] == ['a', 'b']


def test_only_the_second_half_of_a_split_is_used():
  fn = lambda p, x: jnp.sin(jnp.split(x @ p['a'], 2, -1)[1]) @ p['b']
  found = profile_of(fn, {'a': S(3, 8), 'b': S(4, 50)}, S(1, 3))
  assert float(cost.peak_ram(found, {})) == 4 + 50


def test_a_product_with_a_constant_shrinks_with_its_channels():
  table = np.ones((6, 5), np.float32)
  fn = lambda p, x: jax.nn.relu((x @ p['a']) @ table) @ p['b']
  found = profile_of(fn, {'a': S(3, 6), 'b': S(5, 2)}, S(1, 3))
  keep = np.ones(graph.channels(fn, {'a': S(3, 6), 'b': S(5, 2)}, S(1, 3)).size, bool)
  keep[0] = False
  assert [(row.path, row.kind, counts(row, keep).macs) for row in found.rows] == [
      ('a', 'dense', 3 * 5), (None, 'matmul', 5 * 5), ('b', 'dense', 5 * 2)]


def test_counts_of_the_kept_channels_are_the_cost_of_hard_facts():
  rng = np.random.default_rng(0)
  found = profile_of(scanned, STACK, S(1, 3))
  for _ in range(5):
    keep = rng.random(len(found.groups)) < .7
    want = macs(found.rows, jnp.asarray(keep, jnp.float32))
    np.testing.assert_array_equal(want, [counts(row, keep).macs for row in found.rows])


def test_groups_are_those_of_channels():
  found, channels = profile_of(scanned, STACK, S(1, 3)), graph.channels(scanned, STACK, S(1, 3))
  np.testing.assert_array_equal(found.groups, channels.groups)
  rows = {row.path: row for row in found.rows}
  at = lambda axes: groups(axes, found.groups)
  (stream,), (hidden,) = at(rows['stack/a'].weight_axes)
  assert stream != hidden
  assert at(rows['stack/a'].in_axes) == at(rows['stack/b'].out_axes) == ((), (stream,))
  assert at(rows['first'].weight_axes) == ((), (stream,)) and at(rows['last'].weight_axes) == ((stream,), ())


def test_intensity_is_of_what_is_moved():
  dense, = profile_of(*HAND['dense'][:3]).rows
  assert intensity(dense) == 105 / (4 * (15 + 35 + 21))
  assert intensity(dense, bytes_per_entry=1, weight_bytes=.5) == 105 / (15 + 21 + 35 / 2)
  product, = profile_of(*HAND['product of activations'][:3]).rows
  assert intensity(product, bytes_per_entry=2, weight_bytes=9) == 180 / (2 * (60 + 60 + 36))
  layer = profile_of(scanned, STACK, S(1, 3)).rows[1]  # each run reads its own weight
  assert intensity(layer) == 96 / (4 * 3 * (4 + 32 + 8))
