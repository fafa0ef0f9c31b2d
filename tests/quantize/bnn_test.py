"""Binarized networks: the estimator of equation 4 of the paper, and its integer identities."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.export.finalize import finalize


def test_the_gradient_passes_inside_of_one_and_minus_one():
  x = jnp.array([-1.5, -1., -.2, 0., -0., .7, 1., 1.0001])
  y, pull = jax.vjp(lambda x: quantize.sign_activation().apply({}, x), x)
  np.testing.assert_array_equal(y, [-1., -1., -1., 1., 1., 1., 1., 1.])
  np.testing.assert_array_equal(pull(jnp.arange(1., 9.))[0], [0., 2., 3., 4., 5., 6., 7., 0.])


def test_a_network_has_it_at_every_tap_that_is_left_in():
  params = {'a': jnp.eye(2), 'b': jnp.array([[.5], [2.]])}
  fn, ranges = quantize.activations(lambda p, x: x @ p['a'] @ p['b'], params, jnp.ones((1, 2)),
                                    quantizer=quantize.sign_activation())
  assert ranges == {'input': {}, 'a': {}, 'b': {}}
  del ranges['input'], ranges['b']  # the first and the last stay real
  np.testing.assert_array_equal(fn(ranges, params, jnp.array([[.3, -7.]])), [[.5 - 2.]])


def test_export_refuses_it():
  fn, x = lambda p, x: x @ p['w'], jnp.ones((1, 2))
  found = quantize.aware(fn, {'w': jnp.eye(2)}, x, quantizer=quantize.sign_activation())
  fixed = quantize.deployed(found, found.reparam.init(jax.random.key(0), found.params))
  with pytest.raises(EffjaxError, match=r"finalize: range '\w+' has 1 bits, wanted 8 of all, or 16 of all: kernels store activations as int8 or int16"):
    finalize(fn, *fixed, x)


@pytest.mark.parametrize('n', [1, 31, 32, 33, 100])
def test_products_of_signs_are_xors_and_counts(n):
  x = np.random.default_rng(n).normal(size=(2, 50, n)).astype(np.float32)
  a, b = (jnp.asarray(each) for each in x)
  expected = np.sum(np.where(x[0] >= 0, 1, -1) * np.where(x[1] >= 0, 1, -1), -1)
  np.testing.assert_array_equal(quantize.xnor_dot(quantize.packed_signs(a), quantize.packed_signs(b), n), expected)


def test_the_first_layer_by_planes_is_the_product_of_integers():
  rng = np.random.default_rng(0)
  x, w = rng.integers(0, 256, (5, 12), np.uint8), rng.choice([-1, 1], (12, 3)).astype(np.int32)
  planes = quantize.bit_planes(jnp.asarray(x))
  assert planes.shape == (8, 5, 12) and set(np.unique(planes)) == {0, 1}
  by_planes = sum(2**b * (planes[b].astype(jnp.int32) @ w) for b in range(8))
  np.testing.assert_array_equal(by_planes, x.astype(np.int32) @ w)
