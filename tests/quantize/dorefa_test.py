"""DoReFa against a float64 reference written from sections 2.2 to 2.5 of the paper."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.export.kernels import codes_of

KEY = jax.random.key(4)
W = jax.random.normal(KEY, (3, 3, 4, 8))


def quantize_k(r, bits):
  return np.rint(r * (2**bits - 1)) / (2**bits - 1)


@pytest.mark.parametrize('bits', range(2, 9))
def test_values_and_gradients(bits):
  rule = quantize.dorefa(bits)
  y, pull = jax.vjp(lambda w: rule.apply(w, {}, {}, KEY), W)
  t = np.tanh(np.float64(W))
  m, at = np.abs(t).max(), np.unravel_index(np.abs(t).argmax(), t.shape)
  v = np.float64(np.float32(t / m))
  value = 2 * quantize_k(v / 2 + .5, bits) - 1
  np.testing.assert_allclose(y, value, atol=1e-6)
  g = np.cos(5 * np.float64(W))
  by_v = g / m
  by_v[at] -= np.sign(t[at]) * (g * t).sum() / m**2
  np.testing.assert_allclose(pull(jnp.asarray(g, jnp.float32))[0], by_v * (1 - t**2), rtol=2e-4, atol=2e-4)


def test_one_bit_is_the_mean_magnitude_with_the_sign():
  rule = quantize.dorefa(1)
  w = W.at[0, 0, 0, 0].set(0.)
  y, pull = jax.vjp(lambda w: rule.apply(w, {}, {}, KEY), w)
  w64 = np.float64(w)
  np.testing.assert_allclose(y, np.where(w64 >= 0, 1, -1) * np.abs(w64).mean(), rtol=1e-6)
  np.testing.assert_array_equal(pull(jnp.cos(w))[0], jnp.cos(w))
  assert float(rule.facts(rule.init(KEY, w), True).bits) == 1


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.float32, (4, 3), elements=st.floats(-8, 8, width=32)), st.integers(1, 8))
def test_codes_are_odd_and_fit_bitwise(w, bits):
  rule = quantize.dorefa(bits)
  slots = rule.init(KEY, jnp.asarray(w))
  y, fact = rule.apply(*slots, None), rule.facts(slots, True)
  codes = np.asarray(quantize.codes(y, fact.scale))
  assert (codes % 2 == 1).all() and np.abs(codes).max() <= 2**bits - 1
  assert (codes.astype(np.float32) * np.asarray(fact.scale)).tobytes() == np.asarray(y).tobytes()
  assert len(np.unique(codes)) <= 2**bits


@pytest.mark.parametrize('bits', range(1, 8))
def test_integer_kernels_take_the_codes_of_up_to_seven_bits(bits):
  rule = quantize.dorefa(bits)
  slots = rule.init(KEY, W)
  codes, held = codes_of('test', 'w', rule.apply(*slots, None), rule.facts(slots, True))
  assert held == bits + 1 and np.abs(codes).max() == 2**bits - 1


def test_no_kernel_takes_eight():
  rule = quantize.dorefa(8)
  slots = rule.init(KEY, W)
  with pytest.raises(EffjaxError, match="'w' has codes up to 255 for 9 bits"):
    codes_of('test', 'w', rule.apply(*slots, None), rule.facts(slots, True))


@pytest.mark.parametrize('bits', [1, 4])
def test_zeros_give_finite_values_and_gradients(bits):
  rule = quantize.dorefa(bits)
  y, pull = jax.vjp(lambda w: rule.apply(w, {}, {}, None), jnp.zeros((3, 2)))
  assert np.isfinite(y).all() and np.isfinite(pull(jnp.ones_like(y))[0]).all()


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_activations(bits):
  x = jnp.concatenate([jax.random.uniform(KEY, (40,), minval=-.5, maxval=1.5), jnp.array([0., 1.])])
  quantizer = quantize.dorefa_activation(bits)
  y, pull = jax.vjp(lambda x: quantizer.apply({}, x), x)
  np.testing.assert_allclose(y, quantize_k(np.clip(np.float64(x), 0, 1), bits), atol=1e-6)
  np.testing.assert_array_equal(pull(jnp.ones_like(x))[0], (x >= 0) & (x <= 1))
  scale, zero_point = quantizer.facts(quantizer.init(x))
  assert int(zero_point) == -2**(bits - 1) and float(scale) == pytest.approx(1 / (2**bits - 1)) and not quantizer.init(x)


def cotangents(bits, g, keys):
  one = lambda key: jax.vjp(lambda x: quantize.dorefa_gradient(bits)(x, key), jnp.zeros_like(g))[1](g)[0]
  return jax.jit(jax.vmap(one))(keys)


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_gradients_are_unbiased_and_on_the_grid_of_their_example(bits):
  g = jax.random.normal(KEY, (3, 8)) * jnp.array([[1.], [100.], [1e-3]])
  draws = np.float64(cotangents(bits, g, jax.random.split(KEY, 4000)))
  top, steps = np.abs(np.float64(g)).max(1, keepdims=True), 2**bits - 1
  codes = (draws / top * steps + steps) / 2
  np.testing.assert_allclose(codes, np.rint(codes), atol=1e-4)
  assert codes.min() > -1e-4 and codes.max() < steps + 1e-4
  assert (np.abs(draws - np.asarray(g)) <= 2 * top / steps * (1 + 1e-5)).all()
  spread = 2 * top / steps * .5 / np.sqrt(4000)  # the standard deviation of one of two neighbours is at most half a step
  assert (np.abs(draws.mean(0) - np.asarray(g)) <= 4.5 * spread).all()


def test_the_forward_value_is_untouched_and_keys_matter():
  f, x = quantize.dorefa_gradient(2), jax.random.normal(KEY, (4, 5))
  np.testing.assert_array_equal(jax.jit(f)(x, KEY), x)
  one, again, other = cotangents(2, x, jnp.stack([KEY, KEY, jax.random.key(9)]))
  np.testing.assert_array_equal(one, again)
  assert (one != other).any()


def test_an_example_of_zeros_and_bfloat16():
  g = jnp.stack([jnp.zeros(4), jnp.ones(4)]).astype(jnp.bfloat16)
  found = cotangents(4, g, KEY[None])[0]
  assert found.dtype == jnp.bfloat16
  np.testing.assert_array_equal(found, g)


def test_gradients_inside_a_scan_of_layers():
  f, w = quantize.dorefa_gradient(8), jnp.eye(4) * .9

  def loss(w):
    layer = lambda x, key: (f(x @ w, key), None)
    return jnp.sum(jnp.square(jax.lax.scan(layer, jnp.ones((2, 4)), jax.random.split(KEY, 3))[0]))

  exact = jax.grad(lambda w: jnp.sum(jnp.square(jnp.ones((2, 4)) @ w @ w @ w)))(w)
  np.testing.assert_allclose(jax.jit(jax.grad(loss))(w), exact, rtol=.05)


@pytest.mark.parametrize(('make', 'message'), [
    (lambda: quantize.dorefa(0), 'dorefa: bits must be a whole number from 1 to 8, got 0'),
    (lambda: quantize.dorefa(9), 'dorefa: bits must be a whole number from 1 to 8, got 9'),
    (lambda: quantize.dorefa_activation(9), 'dorefa_activation: bits must be a whole number from 1 to 8, got 9'),
    (lambda: quantize.dorefa_gradient(17), 'dorefa_gradient: bits must be a whole number from 1 to 16, got 17'),
    (lambda: quantize.dorefa_gradient(2)(jnp.float32(1), KEY), 'dorefa_gradient: wants an array whose axis 0 counts'),
    (lambda: quantize.dorefa(2).init(KEY, W / 0.), 'dorefa: an array of shape .* has entries that are not finite')])
def test_errors(make, message):
  with pytest.raises(EffjaxError, match=message):
    make()
