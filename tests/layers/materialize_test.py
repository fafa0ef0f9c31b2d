"""Materialize: the identity with its derivatives; what it is for is tested where it is used (NASBench201)."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import graph
from effjax.layers.materialize import materialize


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_identity_and_its_derivatives(dtype):
  x, t = jnp.arange(6, dtype=dtype).reshape(2, 3), jnp.ones((2, 3), dtype)
  for fn in (materialize, jax.jit(materialize), jax.vmap(materialize)):
    chex.assert_trees_all_equal(fn(x), x)
    chex.assert_trees_all_equal(jax.jvp(fn, (x,), (t,)), (x, t))
    chex.assert_trees_all_equal(jax.vjp(fn, x)[1](t), (t,))
    chex.assert_trees_all_equal_dtypes(fn(x), x)


def test_second_derivatives_pass_through():
  hessian = jax.jit(jax.hessian(lambda x: jnp.sum(materialize(x) ** 3)))(jnp.array([1., 2.]))
  np.testing.assert_array_equal(hessian, [[6., 0.], [0., 12.]])


def test_devices_agree_with_one():
  x = jnp.arange(4.).reshape(4, 1)
  chex.assert_trees_all_equal(jax.pmap(materialize)(x), x)
  placed = jax.device_put(x, jax.NamedSharding(jax.make_mesh((4,), ('n',)), jax.P('n')))
  chex.assert_trees_all_equal(jax.jit(lambda x: materialize(x) + 1)(placed), x + 1)


def test_the_graph_sees_a_copy():
  channels = lambda fn: graph.channels(fn, {'a': jnp.ones((2, 3)), 'b': jnp.ones((3, 2))}, jnp.ones((1, 2))).size
  assert channels(lambda p, x: materialize(x @ p['a']) @ p['b']) == channels(lambda p, x: x @ p['a'] @ p['b']) == 3
