"""Every formulation is lax's convolution: values and derivatives of any order and mode, for shapes drawn at random."""
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from effjax import export, graph, quantize
from effjax.errors import EffjaxError
from effjax.export.flatbuffer import operator_name, read
from effjax.layers import depthwise_conv, grouped_conv, pointwise_conv
from effjax.layers.conv_formulations import FORMULATIONS, Conv
from effjax.layers.convolution import DIMENSIONS, conv_general_dilated, ours

KEY = jax.random.key(0)
normal = lambda seed, shape, dtype=jnp.float32: jax.random.normal(jax.random.key(seed), shape, dtype)


def drawn(shape, kernel, groups, channels, outputs):
  return normal(1, (2, *shape, groups * channels)), normal(2, (*kernel, channels, groups * outputs))


@functools.partial(jax.jit, static_argnums=0)
def derivatives(fn, x, w):
  """Value, forward mode, reverse mode, and mixed second derivatives of something that is not linear."""
  y, pull = jax.vjp(fn, x, w)
  loss = lambda x, w: jnp.sum(jnp.sin(fn(x, w)))
  second = jax.grad(lambda x, w: sum(jnp.sum(jnp.cos(d)) for d in jax.grad(loss, (0, 1))(x, w)), (0, 1))(x, w)
  return y, jax.jvp(fn, (x, w), (jnp.cos(x), jnp.cos(w)))[1], pull(jnp.cos(y)), second


def agree(options, x, w):
  """Each formulation that fits these shapes against lax."""
  options = dict(dimension_numbers=DIMENSIONS, **options)
  expected = derivatives(lambda x, w: lax.conv_general_dilated(x, w, **options), x, w)
  pads = lax.padtype_to_pads(x.shape[1:3], [(k - 1) * d + 1 for k, d in zip(w.shape, options['rhs_dilation'])],
                             options['window_strides'], options['padding']) if isinstance(options['padding'], str) else options['padding']
  conv = Conv.of(x.shape, w.shape, options | {'padding': pads, 'precision': None})
  fitting = [name for name, each in FORMULATIONS.items() if each.fits(conv)]
  for name in [None, *fitting]:
    got = derivatives(lambda x, w, name=name: conv_general_dilated(x, w, **options, formulation=name), x, w)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-5 * max(scale, 1.))
  return fitting


@settings(max_examples=4, deadline=None)
@given(size=st.tuples(st.integers(7, 9), st.integers(7, 9)), kernel=st.tuples(st.integers(1, 4), st.integers(1, 3)),
       strides=st.tuples(st.integers(1, 3), st.integers(1, 3)), dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
       groups=st.sampled_from([(1, 3, 2), (2, 2, 3), (4, 1, 1), (3, 1, 2), (4, 2, 2)]),
       padding=st.one_of(st.sampled_from(['SAME', 'VALID']), st.just(((0, 3), (4, 1)))))
def test_any_shape(size, kernel, strides, dilation, groups, padding):
  x, w = drawn(size, kernel, *groups)
  agree(dict(window_strides=strides, padding=padding, rhs_dilation=dilation, feature_group_count=groups[0]), x, w)


@pytest.mark.parametrize(('kernel', 'groups', 'strides', 'known'), [
    pytest.param((3, 3), (8, 1, 1), 1, 'shifts', marks=pytest.mark.slow), ((5, 5), (8, 1, 2), 2, 'shifts'),
    ((1, 1), (1, 8, 4), 1, 'matmul'), pytest.param((1, 1), (1, 8, 4), 2, 'matmul', marks=pytest.mark.slow),
    ((3, 3), (2, 4, 4), 1, 'split'), pytest.param((1, 1), (2, 4, 4), 1, 'split', marks=pytest.mark.slow)])
def test_the_usual_ones(kernel, groups, strides, known):
  x, w = drawn((8, 8), kernel, *groups)
  options = dict(window_strides=(strides,) * 2, padding='SAME', rhs_dilation=(1, 1), feature_group_count=groups[0])
  assert known in agree(options, x, w)


def test_the_functions_by_their_definition():
  x, w = np.float64(normal(0, (1, 5, 6, 2))), np.float64(normal(1, (3, 2, 1, 4)))
  y = np.zeros((1, 2, 3, 4))
  for i, j, c in np.ndindex(2, 3, 4):
    for a, b in np.ndindex(3, 2):
      y[0, i, j, c] += x[0, 2 * i + a, 2 * j + b, c // 2] * w[a, b, 0, c]
  one = lambda a: jnp.asarray(a, jnp.float32)
  np.testing.assert_allclose(depthwise_conv(one(x), one(w), 2, 'VALID'), y, rtol=1e-5, atol=1e-5)
  w = np.float64(normal(2, (1, 1, 2, 3)))
  np.testing.assert_allclose(pointwise_conv(one(x), one(w)), x @ w[0, 0], rtol=1e-5, atol=1e-5)
  w = np.float64(normal(2, (1, 1, 1, 4)))
  np.testing.assert_allclose(grouped_conv(one(x), one(w), 2), np.repeat(x, 2, -1) * w, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', ['depthwise', 'pointwise'])
def test_bfloat16_is_computed_in_float32(name):
  groups, kernel = (6, 3) if name == 'depthwise' else (1, 1)
  x, w = normal(0, (2, 6, 6, 6), jnp.bfloat16), normal(1, (kernel, kernel, 6 // groups, 6), jnp.bfloat16)
  fn = lambda x, w: conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=DIMENSIONS, feature_group_count=groups)
  y, pull = jax.vjp(fn, x, w)
  wide = lambda x: x.astype(jnp.float32)
  exact, pull_exact = jax.vjp(fn, wide(x), wide(w))
  got, expected = (y, *pull(y)), (exact, *pull_exact(wide(y)))
  assert {g.dtype for g in got} == {jnp.dtype('bfloat16')}
  for g, e in zip(got, expected, strict=True):
    np.testing.assert_allclose(wide(g), e, rtol=2**-7, atol=1e-2)


def conv(x, w):
  return conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=DIMENSIONS, feature_group_count=x.shape[-1])


def plain(x, w):
  return lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=DIMENSIONS, feature_group_count=x.shape[-1])


@pytest.mark.parametrize('axes', [(0, None), (None, 0), (0, 0), (4, 2)])
def test_vmap_and_gradients_per_example(axes):
  shapes = [list(shape) for shape in ((2, 5, 5, 3), (3, 3, 1, 3))]
  for shape, axis in zip(shapes, axes, strict=True):
    if axis is not None:
      shape.insert(axis, 4)
  x, w = normal(0, tuple(shapes[0])), normal(1, tuple(shapes[1]))
  each = lambda fn: jax.jit(jax.vmap(lambda x, w: (fn(x, w), jax.grad(lambda *a: jnp.sum(jnp.sin(fn(*a))), (0, 1))(x, w)), axes))
  chex.assert_trees_all_close(each(conv)(x, w), each(plain)(x, w), rtol=1e-4, atol=1e-4)


def test_on_several_devices_in_scans_and_eagerly():
  x, w = normal(0, (8, 6, 6, 3)), normal(1, (3, 3, 1, 3))
  step = lambda x, w: jax.grad(lambda w: jnp.mean(jnp.square(conv(x, w))))(w)
  expected = step(x, w)
  mesh = Mesh(np.array(jax.devices()[:4]), ('d',))
  parts = jax.device_put(x, NamedSharding(mesh, PartitionSpec('d')))
  np.testing.assert_allclose(jax.jit(step)(parts, w), expected, rtol=1e-5, atol=1e-6)
  mapped = jax.pmap(lambda x, w: lax.pmean(step(x, w), 'd'), 'd', in_axes=(0, None))
  np.testing.assert_allclose(mapped(x.reshape(4, 2, 6, 6, 3), w)[0], expected, rtol=1e-5, atol=1e-6)
  mean = lambda x, w: lax.pmean(step(x, w), 'd')
  over = jax.shard_map(mean, mesh=mesh, in_specs=(PartitionSpec('d'), PartitionSpec()), out_specs=PartitionSpec(),
                       check_vma=False)
  np.testing.assert_allclose(jax.jit(over)(x, w), expected, rtol=1e-5, atol=1e-6)
  looped = lambda w: lax.scan(lambda x, _: (jax.checkpoint(conv)(x, w), None), x, None, 2)[0].sum()
  twice = lambda w: plain(plain(x, w), w).sum()
  np.testing.assert_allclose(jax.grad(looped)(w), jax.grad(twice)(w), rtol=1e-4, atol=1e-3)
  with jax.disable_jit():
    np.testing.assert_allclose(conv(x, w), plain(x, w), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('platform', ['tpu', 'cuda'])
def test_other_platforms_run_lax(platform):
  x, w = normal(0, (2, 6, 6, 3)), normal(1, (3, 3, 1, 3))
  lowered = lambda fn: jax.jit(jax.grad(lambda w: jnp.sum(jnp.square(fn(x, w))))).trace(w).lower(
      lowering_platforms=(platform,)).as_text()
  convolutions = lambda text: sorted(line.split('=', 1)[1].split('{')[0] for line in text.splitlines() if 'convolution' in line and '=' in line)
  assert len(convolutions(lowered(conv))) == 2
  assert convolutions(lowered(conv)) == convolutions(lowered(plain))


def test_what_lax_alone_can_do_goes_to_lax():
  x = normal(0, (1, 4, 4, 2))
  for kernel, options in (((3, 3, 2, 2), {}), ((3, 3, 1, 2), dict(lhs_dilation=(2, 2), feature_group_count=2)),
                          ((3, 3, 1, 2), dict(feature_group_count=2, preferred_element_type=jnp.float32))):
    fn = lambda x, w, options=options: conv_general_dilated(x, w, (1, 1), ((1, 1), (1, 1)), dimension_numbers=DIMENSIONS, **options)
    assert 'formulation' not in jax.make_jaxpr(fn)(x, normal(1, kernel)).eqns[0].params
  assert ours(x, normal(1, (3, 3, 1, 2)), jax.make_jaxpr(conv)(x, normal(1, (3, 3, 1, 2))).eqns[0].params)


def operators(path):
  found = read(path.read_bytes())
  return [operator_name(found, operator) for operator in found.subgraphs[0].operators]


def test_the_graph_sees_one_convolution_and_so_does_the_file(tmp_path):
  params = {'a': normal(0, (1, 1, 3, 8)), 'b': normal(1, (3, 3, 1, 8)), 'c': normal(2, (1, 1, 8, 4))}
  def fn(p, x):
    return nn.relu(pointwise_conv(nn.relu(depthwise_conv(nn.relu(pointwise_conv(x, p['a'])), p['b'])), p['c']))
  x = normal(3, (2, 8, 8, 3))
  profile = graph.profile(fn, params, x)
  assert [(row.path, row.kind) for row in profile.ops] == [('a', 'conv'), ('b', 'depthwise'), ('c', 'conv')]
  found = graph.channels(fn, params, x)
  keep = np.arange(found.size) % 3 > 0
  small, less = graph.shrink(fn, params, keep, x)
  assert less['b'].shape[-1] == keep[:8].sum() < 8
  np.testing.assert_allclose(small(less, x), fn(graph.mask(found, params, keep), x), rtol=1e-4, atol=1e-5)
  graph.save(tmp_path / 'small', small, less, x)
  again, params = graph.restore(fn, params, tmp_path / 'small', x)
  np.testing.assert_allclose(again(params, x), small(less, x), rtol=1e-5, atol=1e-6)
  aware = quantize.aware(small, less, x)
  network = export.finalize(small, *quantize.deployed(aware, jax.jit(aware.reparam.init)(KEY, aware.params)), x[:1])
  export.tflite(network, tmp_path / 'int8.tflite')
  export.float_tflite(small, less, x[:1], tmp_path / 'float.tflite')
  assert export.verify(tmp_path / 'int8.tflite', network, np.asarray(x)).same
  for name in ('int8', 'float'):
    assert [op for op in operators(tmp_path / f'{name}.tflite') if 'CONV' in op] == ['CONV_2D', 'DEPTHWISE_CONV_2D', 'CONV_2D']


def test_errors():
  x = normal(0, (1, 6, 6, 4))
  with pytest.raises(EffjaxError, match=r'depthwise_conv: w has shape \(3, 3, 1, 6\), wanted \[kh, kw, 1, a multiple of 4\]'):
    depthwise_conv(x, normal(0, (3, 3, 1, 6)))
  with pytest.raises(EffjaxError, match=r'pointwise_conv: w has shape \(3, 3, 4, 4\), wanted \[1, 1, cin, cout\]'):
    pointwise_conv(x, normal(0, (3, 3, 4, 4)))
  with pytest.raises(EffjaxError, match=r'x \(1, 6, 6, 4\) has 4 channels and w \(1, 1, 3, 6\) takes 3 in each of 2 groups'):
    grouped_conv(x, normal(0, (1, 1, 3, 6)), 2)
  with pytest.raises(EffjaxError, match=r"formulation='matmul' is unknown or does not fit .*: choose from \['lax', 'shifts'"):
    depthwise_conv(x, normal(0, (3, 3, 1, 4)), formulation='matmul')
  with pytest.raises(EffjaxError, match=r"formulation='shifts' of x .*: only depthwise, grouped and 1x1 convolutions"):
    conv_general_dilated(x, normal(0, (3, 3, 4, 4)), (1, 1), 'SAME', dimension_numbers=DIMENSIONS, formulation='shifts')
  for name, call in (('depthwise_conv: strides=0', lambda: depthwise_conv(x, normal(0, (3, 3, 1, 4)), 0)),
                     ('grouped_conv: dilation=0', lambda: grouped_conv(x, normal(0, (3, 3, 2, 4)), 2, dilation=0)),
                     ('pointwise_conv: strides=0', lambda: pointwise_conv(x, normal(0, (1, 1, 4, 4)), 0))):
    with pytest.raises(EffjaxError, match=f'{name}: give a whole number from 1, or two'):
      call()
