"""AdaRound against a float64 reference written from equations 21 to 25 of the paper."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.quantize.adaround import rectified

KEY = jax.random.key(11)
W = jax.random.normal(KEY, (3, 3, 4, 8))


def reference(v, floor, scale, largest):
  """Values and dy/dV in float64."""
  v = np.float64(v)
  sigmoid = 1 / (1 + np.exp(-v))
  open_ = 1.2 * sigmoid - .1
  h = np.clip(open_, 0, 1)
  code = np.float64(floor) + h
  slope = 1.2 * sigmoid * (1 - sigmoid) * ((open_ > 0) & (open_ < 1)) * (np.abs(code) <= largest)
  return np.clip(code, -largest, largest) * np.float64(scale), slope * np.float64(scale)


@pytest.mark.parametrize('bits', [2, 4, 8])
def test_values_and_gradients(bits):
  rule = quantize.adaround(bits)
  slots = rule.init(KEY, W)
  v = 4. * jax.random.normal(jax.random.fold_in(KEY, 1), W.shape)
  y, pull = jax.vjp(lambda v: rule.apply(None, {'rounding': v}, slots.state, KEY), v)
  value, slope = reference(v, slots.state['floor'], slots.state['scale'], 2**(bits - 1) - 1)
  t = jnp.cos(W)
  np.testing.assert_allclose(y, value, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(pull(t)[0], slope * np.float64(t), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('bits', [3, 4, 8])
def test_it_starts_at_the_weights_and_at_nearest_rounding(bits):
  rule = quantize.adaround(bits)
  slots = rule.init(KEY, W)
  scale = slots.state['scale']
  largest = 2**(bits - 1) - 1
  ratio = np.asarray(W) / np.asarray(scale)
  inside = np.abs(ratio) <= largest
  np.testing.assert_allclose(np.asarray(rule.apply(*slots, KEY))[inside], np.asarray(W)[inside], rtol=1e-4, atol=1e-5)
  codes = quantize.codes(rule.apply(*slots, None), scale)
  clear = np.abs(np.abs(ratio - np.floor(ratio)) - .5) > 1e-3
  np.testing.assert_array_equal(np.asarray(codes)[clear], np.clip(np.rint(ratio), -largest, largest)[clear])


def test_deployed_is_floor_or_ceil_whatever_was_learned():
  rule = quantize.adaround(4)
  slots = rule.init(KEY, W)
  v = 3. * jax.random.normal(jax.random.fold_in(KEY, 2), W.shape)
  codes = np.asarray(quantize.codes(rule.apply(None, {'rounding': v}, slots.state, None), slots.state['scale']))
  expected = np.asarray(slots.state['floor']) + (np.asarray(v) > 0)
  np.testing.assert_array_equal(codes, np.clip(expected, -7, 7))


def test_the_penalty_and_its_gradient():
  v = jnp.linspace(-2., 2., 8)
  h = np.clip(1.2 / (1 + np.exp(-np.float64(v))) - .1, 0, 1)
  for beta in (20., 2.):
    value, slope = jax.value_and_grad(quantize.rounding_penalty)(v, beta)
    np.testing.assert_allclose(value, (1 - np.abs(2 * h - 1)**beta).sum(), rtol=1e-5)
    by_h = -2 * beta * np.abs(2 * h - 1)**(beta - 1) * np.sign(2 * h - 1)
    s = 1 / (1 + np.exp(-np.float64(v)))
    np.testing.assert_allclose(slope, by_h * 1.2 * s * (1 - s), rtol=1e-3, atol=1e-6)
  assert float(quantize.rounding_penalty(jnp.array([-9., 9.]), 2.)) == 0.
  assert bool(jnp.isfinite(jax.grad(quantize.rounding_penalty)(jnp.zeros(1), 2.)).all())


@pytest.fixture(scope='module')
def correlated():
  random = np.random.default_rng(0)
  mixed = random.normal(size=(256, 4)) @ random.normal(size=(4, 16)) + .1 * random.normal(size=(256, 16))
  return jnp.asarray(random.normal(size=(16, 8)), jnp.float32), jnp.asarray(mixed, jnp.float32)


def test_reconstruction_beats_nearest_rounding_and_each_weight_decides(correlated):
  w, x = correlated
  rule = quantize.adaround(3)
  layer = lambda w, x: x @ w
  fit = jax.jit(lambda w, x, key, weight: quantize.reconstruct(layer, w, x, key, rule=rule, steps=4000, weight=weight))
  slots = fit(w, x, KEY, 1.)
  error = lambda slots: float(jnp.mean((x @ rule.apply(*slots, None) - x @ w)**2))
  assert error(slots) < error(rule.init(KEY, w))
  undecided = lambda slots: float(jnp.mean(jnp.minimum(h := rectified(slots.phi['rounding']), 1 - h)))
  assert undecided(slots) < .01 < undecided(fit(w, x, KEY, 0.))
  np.testing.assert_array_equal(fit(w, x, KEY, 1.).phi['rounding'], slots.phi['rounding'])


def test_zeros_are_finite():
  rule = quantize.adaround(4)
  slots = rule.init(KEY, jnp.zeros((4, 2)))
  np.testing.assert_array_equal(rule.apply(*slots, None), 0.)
  gradient = jax.grad(lambda phi: jnp.sum(rule.apply(None, phi, slots.state, KEY)))(slots.phi)
  assert bool(jnp.isfinite(gradient['rounding']).all())


@pytest.mark.parametrize(('options', 'w', 'message'), [
    ({'bits': 1}, W, 'bits must be a whole number from 2 to 8, got 1'),
    ({'channel_axis': 4}, W, r'channel_axis 4 of an array of shape \(3, 3, 4, 8\): wanted -4 to 3'),
    ({}, W.at[0].set(jnp.inf), r'adaround: an array of shape \(3, 3, 4, 8\) has entries that are not finite')])
def test_errors(options, w, message):
  with pytest.raises(EffjaxError, match=message):
    quantize.adaround(**options).init(KEY, w)


def test_reconstruct_refuses_what_does_not_belong_together(correlated):
  w, x = correlated
  with pytest.raises(EffjaxError, match='reconstruct: wanted steps and examples .* got 5, 32 and 3 targets for 256'):
    quantize.reconstruct(lambda w, x: x @ w, w, x, KEY, targets=jnp.ones((3, 8)), steps=5)
