"""Max pooling is lax's: values and derivatives, for windows that hypothesis chooses."""
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from effjax import graph, quantize
from effjax.errors import EffjaxError
from effjax.export import finalize, float_tflite, tflite
from effjax.export.flatbuffer import operator_name, read
from effjax.layers import pool_primitives
from effjax.layers.max_pool import max_pool
from effjax.layers.windows import windows

KEY = jax.random.key(0)
SPREAD = lambda n: st.tuples(st.integers(1, n), st.integers(1, n))


@st.composite
def pools(draw):
  """(height, width), window, strides, padding."""
  window = draw(SPREAD(4))
  size = tuple(draw(st.integers(k, 7)) for k in window)
  pads = st.tuples(*(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)) for k in window))
  return size, window, draw(SPREAD(5)), draw(st.one_of(st.sampled_from(['SAME', 'VALID']), pads))


def by_lax(x, window, strides, padding):
  padding = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
  return lax.reduce_window(x, np.asarray(-np.inf, x.dtype), lax.max, (1, *window, 1), (1, *strides, 1), padding)


def values(seed, shape, dtype=np.float32):
  """Few values, so that many are equal; some -inf."""
  x = np.random.default_rng(seed).choice([-np.inf, -1., 0., 1., 1., 2.], shape)
  return jnp.asarray(x, dtype)


@functools.partial(jax.jit, static_argnums=0)
def derivatives(pool, x, t, g):
  """Forward mode; then value and reverse mode, and of distinct values forward mode and that of a gradient."""
  y, pull = jax.vjp(pool, x)
  loss = lambda x: jnp.sum(pool(jnp.sin(x))**2 * g)
  distinct = jax.random.normal(jax.random.key(1), x.shape, x.dtype)  # of equals lax's tangent may take another
  second = jax.jvp(jax.grad(loss), (distinct,), (t,))[1]
  return jax.jvp(pool, (x,), (t,))[1], y, pull(g)[0], jax.jvp(pool, (distinct,), (t,))[1], second


@settings(max_examples=3, deadline=None)
@given(made=pools(), seed=st.integers(0, 99))
def test_values_and_derivatives(made, seed):
  size, *where = made
  x = values(seed, (2, *size, 3))
  fast, slow = (lambda x, pool=pool: pool(x, *where) for pool in (functools.partial(max_pool, formulation='shifts'), by_lax))
  t, g = jax.random.normal(KEY, x.shape), jax.random.normal(KEY, jax.eval_shape(slow, x).shape)
  (tangent, *got), (_, *wanted) = derivatives(fast, x, t, g), derivatives(slow, x, t, g)
  for exact in (0, 2):
    np.testing.assert_array_equal(got[exact], wanted[exact])
  chex.assert_trees_all_close(got, wanted, rtol=1e-5, atol=1e-5)
  # lax's forward mode follows no -inf, nor always the first of equals as its reverse mode does; here both do, and are
  # each other's transposes.
  np.testing.assert_allclose(jnp.vdot(tangent, g), jnp.vdot(t, got[1]), rtol=1e-3, atol=1e-4)


def test_the_first_of_equals():
  x = jnp.array([[1., 3., 3.], [3., 2., 3.]]).reshape(1, 2, 3, 1)
  got = jax.grad(lambda x: max_pool(x, 2, 1).sum())(x)
  np.testing.assert_array_equal(got[0, :, :, 0], [[0, 2, 0], [0, 0, 0]])


@settings(max_examples=3, deadline=None)
@given(made=pools(), seed=st.integers(0, 99))
def test_nan(made, seed):
  size, *where = made
  x = values(seed, (1, *size, 2))
  x = jnp.where(jax.random.bernoulli(jax.random.key(seed), .2, x.shape), jnp.nan, x)
  fast, slow = (jax.vjp(lambda x, pool=pool: pool(x, *where), x) for pool in (max_pool, by_lax))
  np.testing.assert_array_equal(fast[0], slow[0])
  g = jax.random.normal(KEY, fast[0].shape)
  chex.assert_trees_all_close(fast[1](g), slow[1](g), rtol=1e-5, atol=1e-6)


def test_bfloat16():
  x = jax.random.normal(KEY, (2, 6, 6, 3), jnp.bfloat16)
  y, pull = jax.vjp(lambda x: max_pool(x, 3, 1), x)
  dx, = pull(jnp.ones_like(y))
  exact = jax.grad(lambda x: max_pool(x, 3, 1).sum())(x.astype(jnp.float32))
  np.testing.assert_array_equal(y, by_lax(x, (3, 3), (1, 1), 'VALID'))
  np.testing.assert_array_equal(dx, exact.astype(jnp.bfloat16))
  assert y.dtype == dx.dtype == jnp.bfloat16


@pytest.mark.parametrize('dtype', [jnp.int8, jnp.uint8, jnp.int32])
def test_integers(dtype):
  x = jnp.asarray([[1, 5], [7, 2]], dtype).reshape(1, 2, 2, 1)
  y = max_pool(x, 2, 1, ((1, 0), (0, 0)))
  assert y.dtype == dtype
  np.testing.assert_array_equal(y.ravel(), [5, 7])


def test_a_large_window_is_laxs():
  x = jax.random.normal(KEY, (1, 12, 12, 2))
  lowered = lambda k, **more: jax.jit(lambda x: max_pool(x, k, **more)).lower(x).as_text()
  assert 'reduce_window' in lowered(10)
  assert 'reduce_window' not in lowered(9)
  assert 'reduce_window' in lowered(3, formulation='lax')
  np.testing.assert_array_equal(max_pool(x, 10), by_lax(x, (10, 10), (10, 10), 'VALID'))


def test_other_backends_run_lax():
  x = jax.ShapeDtypeStruct((1, 8, 8, 2), jnp.float32)
  gradient = lambda formulation: jax.grad(lambda x: max_pool(x, 3, 2, 'SAME', formulation=formulation).sum())
  on = lambda platform, formulation: jax.export.export(jax.jit(gradient(formulation)), platforms=[platform])(x).mlir_module()
  for platform in ('tpu', 'cuda'):
    assert 'select_and_scatter' in on(platform, None)
    assert 'select_and_scatter' not in on(platform, 'shifts')
  assert 'select_and_scatter' not in on('cpu', None)


def test_transformations_agree():
  x = jnp.stack([jax.random.normal(jax.random.key(i), (4, 5, 5, 2)) for i in range(4)])
  loss = lambda x: jnp.sum(max_pool(x, 3, 2, 'SAME')**2)
  gradient = jax.grad(loss)
  wanted = jnp.stack([gradient(each) for each in x])
  mesh = Mesh(np.array(jax.devices()[:4]), ('d',))
  spec = PartitionSpec('d')
  sharded = jax.device_put(x[0], NamedSharding(mesh, spec))
  with jax.disable_jit():
    chex.assert_trees_all_close(gradient(x[0]), wanted[0])
  chex.assert_trees_all_close(jax.jit(gradient)(sharded), wanted[0])
  chex.assert_trees_all_close(jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=spec, out_specs=spec))(x[0]), wanted[0])
  chex.assert_trees_all_close(jax.pmap(gradient)(x), wanted)
  chex.assert_trees_all_close(jax.vmap(gradient)(x), wanted)
  chex.assert_trees_all_close(jax.vmap(gradient, 1, 1)(jnp.moveaxis(x, 0, 1)), jnp.moveaxis(wanted, 0, 1))
  chex.assert_trees_all_close(lax.scan(lambda c, x: (c, jax.checkpoint(gradient)(x)), 0, x)[1], wanted)


def test_batches_of_tangents_alone():
  x, t = jax.random.normal(KEY, (2, 5, 5, 2)), jax.random.normal(KEY, (3, 2, 5, 5, 2))
  push = jax.jit(lambda t: jax.jvp(lambda x: max_pool(x, 3, 2), (x,), (t,))[1])
  chex.assert_trees_all_close(jax.vmap(push)(t), jnp.stack([push(each) for each in t]))


def model(params, x):
  return max_pool(jax.nn.relu(x @ params['w']), 3, 2, 'SAME')


def test_the_graph_sees_one_pool():
  params, x = {'w': jnp.ones((3, 4))}, jnp.ones((1, 8, 8, 3))
  assert [row.kind for row in graph.profile(model, params, x).ops] == ['dense', 'pool']
  slow = lambda params, x: by_lax(jax.nn.relu(x @ params['w']), (3, 3), (2, 2), 'SAME')
  assert graph.channels(model, params, x).size == graph.channels(slow, params, x).size
  taps = lambda fn: [(tap.name, tap.shape) for tap in graph.taps(fn, params, x)]
  assert taps(model) == taps(slow)


def operators(path):
  found = read(path.read_bytes())
  return [operator_name(found, operator) for operator in found.subgraphs[0].operators]


def test_files_have_one_operator(tmp_path):
  params, x = {'w': jax.random.normal(KEY, (3, 4))}, jax.random.normal(KEY, (4, 8, 8, 3))
  aware = quantize.aware(model, params, x)
  fixed = quantize.deployed(aware, aware.reparam.init(KEY, aware.params))
  tflite(finalize(model, *fixed, x[:1]), tmp_path / 'int8.tflite')
  float_tflite(model, params, x, tmp_path / 'float.tflite')
  for kind in ('int8', 'float'):
    assert operators(tmp_path / f'{kind}.tflite').count('MAX_POOL_2D') == 1, kind


@pytest.mark.parametrize(('arguments', 'text'), [
    (dict(window=0), 'max_pool: window=0: give a whole number from 1, or two (height, width)'),
    (dict(window=2, strides=(0, 1)), 'max_pool: strides=(0, 1): give a whole number from 1, or two (height, width)'),
    (dict(window=2, padding='FULL'), "max_pool: padding='FULL': give 'SAME', 'VALID' or ((top, bottom), (left, right)), from 0"),
    (dict(window=2, padding=((0, 0), (-1, 0))), "max_pool: padding=((0, 0), (-1, 0)): give 'SAME', 'VALID' or ((top, bottom), (left, right)), from 0"),
    (dict(window=2, padding=((2, 0), (0, 0))), 'max_pool: padding=((2, 0), (0, 0)) has room for a whole window (2, 2), which would see nothing of x: pad less than the window'),
    (dict(window=5), "max_pool: window (5, 5) is larger than x of shape (1, 4, 4, 2) with padding ((0, 0), (0, 0)): make it smaller, or pad more"),
    (dict(window=2, formulation='fast'), "reduce_window_max: formulation='fast' is unknown: choose from ('lax', 'shifts'), or None for the fastest")])
def test_errors(arguments, text):
  with pytest.raises(EffjaxError) as error:
    max_pool(jnp.ones((1, 4, 4, 2)), **arguments)
  assert str(error.value) == text


@pytest.mark.parametrize(('x', 'window', 'got'), [
    (jnp.ones((1, 4, 4, 1), jnp.int32), 2, 'int32 and window (2, 2)'),
    (jnp.ones((1, 12, 12, 1)), 10, 'float32 and window (10, 10)')])
def test_shifts_that_do_not_fit(x, window, got):
  with pytest.raises(EffjaxError) as error:
    max_pool(x, window, formulation='shifts')
  assert str(error.value) == (f"reduce_window_max: formulation='shifts' got {got}, wanted floats and up to 81 entries: "
                              'leave it out')
  assert pool_primitives.MOST_TAPS == 81


def test_images_have_four_axes():
  with pytest.raises(EffjaxError) as error:
    windows('max_pool', (4, 4, 1), 2)
  assert str(error.value) == 'max_pool: x has shape (4, 4, 1), wanted NHWC: give four axes'
