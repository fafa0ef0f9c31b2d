"""The fast convolutions are the convolutions: values and gradients, for shapes that hypothesis chooses."""
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from effjax.layers import InvertedResidual
from effjax.layers.fast import fast

KEY = jax.random.key(0)
DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def conv(w, x, strides=(1, 1), padding='SAME', groups=None, **more):
  groups = x.shape[-1] // w.shape[2] if groups is None else groups
  return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=DIMENSIONS,
                                  feature_group_count=groups, **more)


@functools.partial(jax.jit, static_argnums=0)
def with_gradients(fn, w, x):
  y, pull = jax.vjp(fn, w, x)
  return y, *pull(jax.random.normal(KEY, y.shape, y.dtype))


@pytest.mark.parametrize(('shape', 'options', 'formulation'), [
    ((3, 3, 1, 4), {}, True), ((1, 1, 4, 6), {'strides': (2, 2)}, True), ((3, 3, 2, 4), {'groups': 2}, True),
    ((3, 3, 1, 4), {'rhs_dilation': (2, 2)}, True), ((3, 3, 4, 6), {}, False),
    ((3, 3, 1, 4), {'lhs_dilation': (2, 2), 'padding': [(1, 1), (1, 1)]}, False),
    ((3, 3, 1, 4), {'padding': [(-1, 0), (0, 0)]}, False)])
def test_what_is_fast_and_what_stays(shape, options, formulation):
  x, w = jax.random.normal(KEY, (2, 6, 6, 4)), jax.random.normal(jax.random.key(1), shape)
  fn = lambda w, x: conv(w, x, **options)
  eqn = next(eqn for eqn in jax.make_jaxpr(fast(fn))(w, x).eqns if str(eqn.primitive) == 'conv_general_dilated')
  assert ('formulation' in eqn.params) == formulation
  chex.assert_trees_all_close(with_gradients(fast(fn), w, x), with_gradients(fn, w, x), rtol=1e-4, atol=1e-4)


def test_within_a_scan():
  x, w = jax.random.normal(KEY, (1, 6, 6, 3)), jax.random.normal(jax.random.key(1), (3, 3, 1, 3))
  fn = lambda w, x: jax.lax.scan(lambda x, _: (conv(w, x), None), x, None, 2)[0]
  assert 'formulation' in str(jax.make_jaxpr(fast(fn))(w, x))
  chex.assert_trees_all_close(with_gradients(fast(fn), w, x), with_gradients(fn, w, x), rtol=1e-4, atol=1e-3)


def test_second_derivatives_under_vmap():
  x, w = jax.random.normal(KEY, (3, 1, 5, 5, 2)), jax.random.normal(KEY, (3, 3, 1, 2))
  def curvature(fn):
    inner = lambda w, x: jnp.sum(jnp.sin(fn(w, x)))
    return jax.jit(jax.vmap(jax.grad(lambda w, x: jnp.sum(jax.grad(inner)(w, x)**2)), (None, 0)))(w, x)
  chex.assert_trees_all_close(curvature(fast(conv)), curvature(conv), rtol=1e-3, atol=1e-3)


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
