"""Average pooling is lax's sum over windows, divided: values and derivatives, for windows that hypothesis chooses."""
import functools
import itertools

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
from effjax.layers.avg_pool import avg_pool
from effjax.layers.windows import ceil_mode

KEY = jax.random.key(0)
SPREAD = lambda n: st.tuples(st.integers(1, n), st.integers(1, n))


@st.composite
def pools(draw):
  """(height, width), window, strides, padding."""
  window = draw(SPREAD(4))
  size = tuple(draw(st.integers(k, 7)) for k in window)
  pads = st.tuples(*(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)) for k in window))
  strides = draw(st.one_of(st.just(window), SPREAD(5)))
  return size, window, strides, draw(st.one_of(st.sampled_from(['SAME', 'VALID']), pads))


def by_lax(x, window, strides, padding, count_padding):
  padding = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
  total = lambda x: lax.reduce_window(x, np.float32(0), lax.add, (1, *window, 1), (1, *strides, 1), padding)
  return total(x) / (float(np.prod(window)) if count_padding else total(jnp.ones((1, *x.shape[1:3], 1))))


def by_hand(x, window, strides, pads, count_padding):
  """float64, window by window."""
  x = np.asarray(x, np.float64)
  padded = np.pad(x, ((0, 0), *pads, (0, 0)))
  inside = np.pad(np.ones(x.shape[1:3]), pads)
  starts = [range(0, n - k + 1, s) for n, k, s in zip(padded.shape[1:3], window, strides, strict=True)]
  mean = lambda i, j: (padded[:, i:i + window[0], j:j + window[1]].sum((1, 2))
                       / (np.prod(window) if count_padding else inside[i:i + window[0], j:j + window[1]].sum()))
  return np.stack([np.stack([mean(i, j) for j in starts[1]], 1) for i in starts[0]], 1)


@functools.partial(jax.jit, static_argnums=0)
def derivatives(pool, x, t, g):
  """Value, forward mode, reverse mode, and the derivatives of a function of the gradient."""
  y, pull = jax.vjp(pool, x)
  second = jax.jvp(jax.grad(lambda x: jnp.sum(jnp.sin(pool(x)) * g)), (x,), (t,))[1]
  return y, jax.jvp(pool, (x,), (t,))[1], pull(g)[0], second


@settings(max_examples=4, deadline=None)
@given(made=pools(), count_padding=st.booleans())
def test_values_and_derivatives(made, count_padding):
  size, *where = made
  x, t = jax.random.normal(KEY, (2, 2, *size, 3))
  fast = lambda x: avg_pool(x, *where, count_padding=count_padding, formulation='shifts')
  slow = lambda x: by_lax(x, *where, count_padding)
  g = jax.random.normal(KEY, jax.eval_shape(slow, x).shape)
  chex.assert_trees_all_close(derivatives(fast, x, t, g), derivatives(slow, x, t, g), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('count_padding', [True, False])
@pytest.mark.parametrize('formulation', [None, 'lax', 'shifts'])
def test_against_float64(count_padding, formulation):
  x, pads = jax.random.normal(KEY, (2, 7, 6, 3)), ((1, 2), (0, 1))
  got = avg_pool(x, (3, 2), 2, pads, count_padding=count_padding, formulation=formulation)
  np.testing.assert_allclose(got, by_hand(x, (3, 2), (2, 2), pads, count_padding), rtol=1e-5, atol=1e-6)


def test_types():
  x = jax.random.normal(KEY, (2, 5, 5, 2), jnp.bfloat16)
  y, pull = jax.vjp(lambda x: avg_pool(x, 3, 1), x)
  assert y.dtype == pull(y)[0].dtype == jnp.bfloat16
  total = avg_pool(x.astype(jnp.float32), 3, 1) * 9
  np.testing.assert_array_equal(y, total.astype(jnp.bfloat16) / jnp.asarray(9, jnp.bfloat16))
  np.testing.assert_array_equal(avg_pool(jnp.array([[1, 2], [3, 4]]).reshape(1, 2, 2, 1), 2).ravel(), [2.5])


def test_what_the_cpu_runs():
  x = jnp.ones((1, 12, 12, 2))
  gradient = lambda **more: jax.jit(jax.vjp(lambda x: avg_pool(x, 3, **more), x)[1])
  lowered = lambda fn, x: fn.lower(x).as_text()
  pooled = lambda window, *more: jax.jit(lambda x: avg_pool(x, window, *more))
  assert 'reduce_window' not in lowered(pooled(3, 1, 'SAME'), x)
  assert 'reduce_window' in lowered(pooled(3, 2, 'SAME'), x)
  assert 'reduce_window' not in lowered(pooled(3, 2), x)
  assert 'reduce_window' in lowered(pooled(10), x)
  for more, found in (({}, False), ({'formulation': 'lax'}, True)):
    y = avg_pool(x, 3, 2, 'SAME')
    assert ('reduce_window' in lowered(gradient(strides=2, padding='SAME', **more), y)) == found


def test_other_backends_run_lax():
  x = jax.ShapeDtypeStruct((1, 8, 8, 2), jnp.float32)
  gradient = lambda x: jax.jvp(jax.grad(lambda x: jnp.sum(avg_pool(x, 3, 2, 'SAME')**2)), (x,), (x,))[1]
  for platform in ('tpu', 'cuda'):
    assert 'reduce_window' in jax.export.export(jax.jit(gradient), platforms=[platform])(x).mlir_module()


def test_transformations_agree():
  x = jnp.stack([jax.random.normal(jax.random.key(i), (4, 5, 5, 2)) for i in range(4)])
  gradient = jax.grad(lambda x: jnp.sum(avg_pool(x, 3, 2, 'SAME', count_padding=False)**2))
  wanted = jnp.stack([gradient(each) for each in x])
  mesh, spec = Mesh(np.array(jax.devices()[:4]), ('d',)), PartitionSpec('d')
  chex.assert_trees_all_close(jax.jit(gradient)(jax.device_put(x[0], NamedSharding(mesh, spec))), wanted[0])
  chex.assert_trees_all_close(jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=spec, out_specs=spec))(x[0]), wanted[0])
  chex.assert_trees_all_close(jax.pmap(gradient)(x), wanted)
  chex.assert_trees_all_close(jax.vmap(gradient, 1, 1)(jnp.moveaxis(x, 0, 1)), jnp.moveaxis(wanted, 0, 1))
  chex.assert_trees_all_close(lax.scan(lambda c, x: (c, jax.checkpoint(gradient)(x)), 0, x)[1], wanted)


def model(params, x, padding='VALID', count_padding=True, strides=2):
  return avg_pool(jax.nn.relu(x @ params['w']), 3, strides, padding, count_padding=count_padding)


CASES = [('VALID', True), ('SAME', True), ('SAME', False)]


@pytest.mark.parametrize(('padding', 'count_padding'), CASES)
def test_the_graph_sees_one_pool(padding, count_padding):
  params, x = {'w': jnp.ones((3, 4))}, jnp.ones((1, 8, 8, 3))
  fast = functools.partial(model, padding=padding, count_padding=count_padding)
  slow = lambda params, x: by_lax(jax.nn.relu(x @ params['w']), (3, 3), (2, 2), padding, count_padding)
  kinds = lambda fn: [row.kind for row in graph.profile(fn, params, x).ops]
  assert kinds(fast) == kinds(slow)
  assert kinds(fast)[:2] == ['dense', 'pool']
  assert graph.channels(fast, params, x).size == graph.channels(slow, params, x).size
  taps = lambda fn: [(tap.name, tap.shape) for tap in graph.taps(fn, params, x)]
  assert taps(fast) == taps(slow)


@pytest.mark.parametrize(('padding', 'count_padding'), CASES)
def test_files_have_one_operator(tmp_path, padding, count_padding):
  fast = functools.partial(model, padding=padding, count_padding=count_padding)
  params, x = {'w': jax.random.normal(KEY, (3, 4))}, jax.random.normal(KEY, (4, 8, 8, 3))
  aware = quantize.aware(fast, params, x)
  fixed = quantize.deployed(aware, aware.reparam.init(KEY, aware.params))
  tflite(finalize(fast, *fixed, x[:1]), tmp_path / 'int8.tflite')
  float_tflite(fast, params, x, tmp_path / 'float.tflite')
  for kind in ('int8', 'float'):
    found = read((tmp_path / f'{kind}.tflite').read_bytes())
    names = [operator_name(found, operator) for operator in found.subgraphs[0].operators]
    assert names.count('AVERAGE_POOL_2D') == 1, (kind, names)


def test_ceil_mode_is_the_rule_of_pytorch():
  """Its text: the last window may end beyond the image, and begins within it or its left padding."""
  for n, k, s, p in itertools.product(range(1, 9), range(1, 5), range(1, 6), range(3)):
    if p > k // 2 or n + 2 * p < k:
      continue
    starts = [start for start in range(-p, n, s) if start == -p or start - s + k < n + p]
    (low, high), _ = ceil_mode((1, n, n, 1), k, s, p)
    assert low == p and high >= 0
    assert (n + low + high - k) // s + 1 == len(starts), (n, k, s, p)


def test_ceil_mode_in_a_pool():
  x = jnp.arange(16.).reshape(1, 4, 4, 1)
  y = avg_pool(x, 3, 2, ceil_mode(x.shape, 3, 2), count_padding=False)
  np.testing.assert_allclose(y.reshape(2, 2), [[5., 6.5], [11., 12.5]])


def test_errors():
  with pytest.raises(EffjaxError) as error:
    avg_pool(jnp.ones((1, 4, 4, 1)), 5)
  assert str(error.value) == ('avg_pool: window (5, 5) is larger than x of shape (1, 4, 4, 1) with padding ((0, 0), '
                              '(0, 0)): make it smaller, or pad more')
  with pytest.raises(EffjaxError) as error:
    ceil_mode((1, 4, 4, 1), 3, 2, -1)
  assert str(error.value) == 'ceil_mode: padding=-1: give a whole number from 0, or two (height, width)'
