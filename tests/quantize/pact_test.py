"""PACT against a float64 reference written from equations 1 to 3 of the paper."""
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.quantize.lsq_plus import SMALLEST_SCALE


def reference(x, alpha, bits):
  clipped = .5 * (np.abs(x) - np.abs(x - alpha) + alpha)
  steps = 2**bits - 1
  return np.rint(clipped * steps / alpha) * alpha / steps, (x >= 0) & (x < alpha), x >= alpha


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(st.integers(0, 999), st.sampled_from([2, 3, 4, 8]), st.floats(.1, 5.))
def test_value_and_gradient_are_those_of_the_paper(seed, bits, alpha):
  rng = np.random.default_rng(seed)
  x, t = rng.normal(1, 2, (5, 9)).astype(np.float32), rng.normal(size=(5, 9)).astype(np.float32)
  quantizer, phi = quantize.pact(bits), {'alpha': jnp.float32(alpha)}
  y, pull = jax.vjp(quantizer.apply, phi, jnp.asarray(x))
  value, inside, above = reference(np.float64(x), np.float64(np.float32(alpha)), bits)
  dphi, dx = pull(jnp.asarray(t))
  np.testing.assert_allclose(y, value, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(dx, inside * t)
  np.testing.assert_allclose(dphi['alpha'], (above * np.float64(t)).sum(), rtol=1e-5, atol=1e-5)


def test_at_alpha_itself_the_gradient_is_alphas():
  quantizer, phi = quantize.pact(8), {'alpha': jnp.float32(255.)}
  dphi, dx = jax.grad(lambda phi, x: jnp.sum(quantizer.apply(phi, x)), (0, 1))(phi, jnp.array([0., 255., 254.]))
  assert float(dphi['alpha']) == 1.
  np.testing.assert_array_equal(dx, [1., 0., 1.])


def test_forward_mode_agrees():
  quantizer, x = quantize.pact(3), jnp.linspace(-1., 4., 20)
  f = lambda alpha: jnp.sum(jnp.cos(quantizer.apply({'alpha': alpha}, x)))
  np.testing.assert_allclose(jax.jacfwd(f)(jnp.float32(2.5)), jax.grad(f)(jnp.float32(2.5)), rtol=1e-6)


@pytest.mark.parametrize('bits', [2, 4, 8])
def test_the_device_holds_the_integers_of_lsq_plus_with_a_fixed_zero_point(bits):
  x = jax.random.normal(jax.random.key(0), (16, 8)) * 2
  quantizer, other = quantize.pact(bits), quantize.lsq_plus(bits, zero_point=-2**(bits - 1))
  phi = quantizer.init(x)
  scale, zero_point = quantizer.facts(phi)
  assert quantizer.bits == bits and int(zero_point) == -2**(bits - 1) and zero_point.dtype == jnp.int32
  np.testing.assert_array_equal(quantizer.apply(phi, x), other.apply({'scale': scale}, x))
  np.testing.assert_array_equal(quantizer.apply(phi, quantizer.apply(phi, x)), quantizer.apply(phi, x))


def test_only_the_penalty_makes_alpha_smaller():
  quantizer, x = quantize.pact(4), jnp.array([.5, 1., 1.5])
  phi = {'alpha': jnp.float32(2.)}
  assert float(jax.grad(lambda phi: jnp.sum(quantizer.apply(phi, x)**2))(phi)['alpha']) == 0.
  assert float(jax.grad(lambda phi: quantize.pact_penalty({'a': phi}, .1))(phi)['alpha']) == pytest.approx(.4)


def test_the_penalty_is_the_sum_of_squares_of_alphas_alone():
  ranges = {'a': {'alpha': jnp.float32(2.)}, 'b/alpha': {'scale': jnp.float32(7.)}, 'c': {'alpha': jnp.float32(-3.)}}
  assert float(quantize.pact_penalty(ranges, jnp.float32(.5))) == 6.5
  with pytest.raises(EffjaxError, match=r"pact_penalty: no alpha among the ranges \['b/scale'\]: quantize"):
    quantize.pact_penalty({'b': {'scale': jnp.float32(1.)}}, 1.)


@pytest.mark.parametrize('alpha', [0., -1., 1e-12])
def test_an_alpha_below_the_floor_comes_back(alpha):
  quantizer, phi = quantize.pact(4), {'alpha': jnp.float32(alpha)}
  assert float(quantizer.facts(phi)[0]) == pytest.approx(SMALLEST_SCALE)
  loss = lambda phi: jnp.sum((quantizer.apply(phi, jnp.ones(4)) - 1)**2)
  assert float(jax.grad(loss)(phi)['alpha']) < 0


def test_zeros_and_bfloat16():
  quantizer = quantize.pact(8)
  phi = quantizer.init(jnp.zeros((2, 2)))
  assert np.isfinite(quantizer.apply(phi, jnp.ones((2, 2)))).all() and float(phi['alpha']) > 0
  x = jnp.linspace(-1, 3, 8, dtype=jnp.bfloat16)
  y, pull = jax.vjp(quantizer.apply, {'alpha': jnp.float32(2.)}, x)
  dphi, dx = pull(jnp.ones_like(y))
  assert y.dtype == dx.dtype == jnp.bfloat16 and dphi['alpha'].dtype == jnp.float32


def test_only_taps_behind_a_relu_take_it():
  params = {'a': {'w': jnp.eye(4)}, 'b': {'w': -jnp.eye(4)}}
  fn = lambda p, x: jax.nn.relu(x @ p['a']['w']) @ p['b']['w']
  mixed = quantize.lsq_plus()._replace(from_zero=lambda: quantize.pact())
  quantized, ranges = quantize.activations(fn, params, jnp.ones((2, 4)), quantizer=mixed)
  assert {name for name, phi in ranges.items() if 'alpha' in phi} == {'a'}
  np.testing.assert_allclose(quantized(ranges, params, jnp.ones((2, 4))), -1., rtol=.01)


@pytest.mark.parametrize('bits', [1, 9, 16])
def test_other_bits_are_refused(bits):
  with pytest.raises(EffjaxError, match=f'pact: bits must be a whole number from 2 to 8, got {bits}: for 16 use'):
    quantize.pact(bits)
