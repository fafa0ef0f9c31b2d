"""The fast convolutions are the convolutions: values and gradients, for shapes that hypothesis chooses."""
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

from effjax.layers import InvertedResidual
from effjax.layers.fast import depthwise, fast

KEY = jax.random.key(0)
DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def conv(w, x, strides=(1, 1), padding='SAME', groups=None, **more):
  groups = x.shape[-1] // w.shape[2] if groups is None else groups
  return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=DIMENSIONS,
                                  feature_group_count=groups, **more)


def primitives(fn, *args):
  return {str(eqn.primitive) for eqn in jax.make_jaxpr(fn)(*args).eqns}


@functools.partial(jax.jit, static_argnums=0)
def with_gradients(fn, w, x):
  y, pull = jax.vjp(fn, w, x)
  return y, *pull(jax.random.normal(KEY, y.shape, y.dtype))


@settings(max_examples=8, deadline=None)
@given(size=st.tuples(st.integers(5, 9), st.integers(5, 9)), kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
       strides=st.tuples(st.integers(1, 3), st.integers(1, 3)), channels=st.integers(2, 4),
       padding=st.one_of(st.sampled_from(['SAME', 'VALID']), st.just([(0, 3), (4, 1)])))
def test_depthwise(size, kernel, strides, channels, padding):
  x = jax.random.normal(KEY, (2, *size, channels))
  w = jax.random.normal(jax.random.key(1), (*kernel, 1, channels))
  slow = lambda w, x: conv(w, x, strides, padding)
  assert 'custom_vjp_call' in primitives(fast(slow), w, x)
  chex.assert_trees_all_close(with_gradients(fast(slow), w, x), with_gradients(slow, w, x), rtol=1e-4, atol=1e-4)


def test_pointwise():
  x, w = jax.random.normal(KEY, (2, 5, 4, 3)), jax.random.normal(KEY, (1, 1, 3, 6))
  assert 'conv_general_dilated' not in primitives(fast(conv), w, x)
  chex.assert_trees_all_close(with_gradients(fast(conv), w, x), with_gradients(conv, w, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('shape', 'options'), [
    ((3, 3, 4, 6), {}), ((3, 3, 2, 4), {'groups': 2}), ((3, 3, 1, 8), {'groups': 4}),
    ((3, 3, 1, 4), {'rhs_dilation': (2, 2)}), ((3, 3, 1, 4), {'lhs_dilation': (2, 2), 'padding': [(1, 1), (1, 1)]}),
    ((1, 1, 4, 6), {'strides': (2, 2)}), ((3, 3, 1, 4), {'padding': [(-1, 0), (0, 0)]})])
def test_what_is_not_depthwise_or_pointwise_stays(shape, options):
  x, w = jax.random.normal(KEY, (2, 6, 6, 4)), jnp.ones(shape)
  fn = lambda w, x: conv(w, x, **options)
  assert 'conv_general_dilated' in primitives(fast(fn), w, x)
  np.testing.assert_array_equal(fast(fn)(w, x), fn(w, x))


def test_second_derivatives_under_vmap():
  x, w = jax.random.normal(KEY, (3, 1, 5, 5, 2)), jax.random.normal(KEY, (3, 3, 1, 2))
  def curvature(fn):
    inner = lambda w, x: jnp.sum(jnp.sin(fn(w, x)))
    return jax.jit(jax.vmap(jax.grad(lambda w, x: jnp.sum(jax.grad(inner)(w, x)**2)), (None, 0)))(w, x)
  chex.assert_trees_all_close(curvature(fast(conv)), curvature(conv), rtol=1e-3, atol=1e-3)


def test_bfloat16_is_computed_in_float32():
  x, w = jax.random.normal(KEY, (1, 6, 6, 3), jnp.bfloat16), jnp.ones((5, 5, 1, 3), jnp.bfloat16)
  y, pull = jax.vjp(lambda x, w: depthwise(x, w, (1, 1), ((2, 2), (2, 2))), x, w)
  assert {y.dtype, *(g.dtype for g in pull(y))} == {jnp.dtype('bfloat16')}
  exact = depthwise(x.astype(jnp.float32), w.astype(jnp.float32), (1, 1), ((2, 2), (2, 2)))
  chex.assert_trees_all_equal(y, exact.astype(jnp.bfloat16))


def test_a_block_in_training_alone_and_over_four_devices():
  net, x = InvertedResidual(4, strides=2, expand=2), jax.random.normal(KEY, (8, 8, 8, 4))
  variables = jax.jit(lambda key: net.init(key, x, False))(KEY)

  def forward(params, stats, x):
    return net.apply({'params': params, 'batch_stats': stats}, x, True, mutable=['batch_stats'])

  def gradients(fn):
    def loss(params, stats, x):
      y, new = fn(params, stats, x)
      return jnp.mean(y**2), new
    return jax.jit(jax.value_and_grad(loss, has_aux=True))

  expected = gradients(forward)(variables['params'], variables['batch_stats'], x)
  mesh = Mesh(np.array(jax.devices()[:4]), ('d',))
  for data in (x, jax.device_put(x, NamedSharding(mesh, PartitionSpec('d')))):
    got = gradients(fast(forward))(variables['params'], variables['batch_stats'], data)
    chex.assert_trees_all_close(jax.device_get(got), jax.device_get(expected), rtol=2e-3, atol=1e-5)


def test_other_backends_keep_the_function(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert fast(conv) is conv
