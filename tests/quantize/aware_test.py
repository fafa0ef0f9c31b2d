"""Quantization-aware training of a whole network: what trains, what is deployed."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError

PARAMS = {'a': jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32), 'bias': jnp.ones((1, 4)),
          'b': jnp.asarray(np.random.default_rng(1).normal(size=(4, 2)), jnp.float32), 'unused': None}
X = jnp.asarray(np.random.default_rng(2).normal(size=(5, 3)), jnp.float32)


def fn(p, x):
  return jax.nn.relu(x @ p['a'] + p['bias']) @ p['b']


def trained(**options):
  found = quantize.aware(fn, PARAMS, X, **options)
  return found, found.reparam.init(jax.random.key(0), found.params)


def test_every_kernel_has_its_bits_and_nothing_else_is_rounded():
  found, slots = trained(bits={'b': 4})
  fixed = quantize.deployed(found, slots)
  assert {path: float(fact.bits) for path, fact in fixed.facts.items()} == {'a': 8., 'b': 4.}
  for path, largest in (('a', 127), ('b', 7)):
    codes = np.asarray(fixed.weights[path], np.float64) / np.asarray(fixed.facts[path].scale, np.float64)
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-5)
    assert np.abs(np.rint(codes)).max() <= largest
  np.testing.assert_array_equal(fixed.weights['bias'], PARAMS['bias'])


def test_the_ranges_are_those_of_the_taps_and_hold_integers():
  found, slots = trained()
  fixed = quantize.deployed(found, slots)
  assert set(fixed.ranges) == {'input', 'a', 'b'}
  for scale, zero_point, bits in fixed.ranges.values():
    assert scale > 0 and -128 <= zero_point <= 127 and isinstance(zero_point, int) and bits == 8


def test_the_quantized_function_is_near_and_everything_in_it_trains():
  found, slots = trained()
  weights = found.reparam.apply(*slots, None)
  np.testing.assert_allclose(found.apply(weights, X), fn(PARAMS, X), atol=.1)
  loss = lambda theta, phi: jnp.sum(found.apply(found.reparam.apply(theta, phi, slots.state, None), X)**2)
  gradients = jax.tree.leaves(jax.grad(loss, argnums=(0, 1))(slots.theta, slots.phi))
  assert len(gradients) == 3 + (2 + 1 + 2) + 2 and all(bool(jnp.isfinite(g).all()) for g in gradients)


def test_bits_for_what_is_no_kernel_are_an_error():
  with pytest.raises(EffjaxError, match=r"bits are given for \['bias'\], which feed no convolution .* \['a', 'b'\]"):
    quantize.aware(fn, PARAMS, X, bits={'bias': 4})

def test_dense_layers_with_one_scale():
  found, slots = trained(dense_per_tensor=True, bits={'b': 4})
  facts = quantize.deployed(found, slots).facts
  assert {path: np.size(fact.scale) for path, fact in facts.items()} == {'a': 1, 'b': 1}
  conv = lambda w, x: jax.lax.conv(x, w, (1, 1), 'SAME')
  with pytest.raises(EffjaxError, match=r"aware: dense_per_tensor=True, but none of \[''\] is dense: leave it out"):
    quantize.aware(conv, jnp.ones((2, 1, 3, 3)), jnp.ones((1, 1, 4, 4)), dense_per_tensor=True)
