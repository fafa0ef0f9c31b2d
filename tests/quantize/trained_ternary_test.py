"""Trained ternary quantization against a float64 reference of equations 6 to 8 of the paper."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.export.finalize import finalize
from effjax.quantize.lsq import FLOOR

KEY = jax.random.key(3)
W = jax.random.normal(KEY, (3, 3, 4, 8))


def reference(w, p, n, threshold):
  """Values, dy/dw, dy/dp and dy/dn, with n as a positive number."""
  w = np.asarray(w)
  d = np.float32(threshold) * np.abs(w).max()
  above, below = w > d, w < -d
  return above * np.float64(p) - below * np.float64(n), np.where(above, p, np.where(below, n, 1.)), above, -1. * below


@pytest.mark.parametrize('threshold', [0., .05, .5])
def test_values_and_gradients(threshold):
  rule, phi = quantize.trained_ternary(threshold=threshold), {'positive': jnp.float32(.6), 'negative': jnp.float32(1.7)}
  value, by_w, by_p, by_n = reference(W, .6, 1.7, threshold)
  t = jax.random.normal(jax.random.fold_in(KEY, 1), W.shape)
  y, pull = jax.vjp(lambda w, phi: rule.apply(w, phi, {}, KEY), W, phi)
  dw, dphi = pull(t)
  np.testing.assert_allclose(y, value, rtol=1e-6)
  np.testing.assert_allclose(dw, by_w * np.float64(t), rtol=1e-6)
  np.testing.assert_allclose(dphi['positive'], np.sum(by_p * np.float64(t)), rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(dphi['negative'], np.sum(by_n * np.float64(t)), rtol=1e-4, atol=1e-4)
  _, moved = jax.jvp(lambda w, phi: rule.apply(w, phi, {}, KEY), (W, phi), (t, {'positive': jnp.float32(2), 'negative': jnp.float32(3)}))
  np.testing.assert_allclose(moved, by_w * np.float64(t) + 2 * by_p + 3 * by_n, rtol=1e-5, atol=1e-6)


def test_the_scales_start_at_the_least_squared_error_of_their_side():
  rule = quantize.trained_ternary()
  slots, w = rule.init(KEY, W + .2), np.float64(W + .2)
  d = .05 * np.abs(w).max()
  np.testing.assert_allclose(slots.phi['positive'], w[w > d].mean(), rtol=1e-6)
  np.testing.assert_allclose(slots.phi['negative'], -w[w < -d].mean(), rtol=1e-6)


def test_the_levels_are_what_is_deployed():
  rule = quantize.trained_ternary()
  slots = rule.init(KEY, W)
  fact = rule.facts(slots, True)
  np.testing.assert_array_equal(np.unique(rule.apply(*slots, None)), fact.levels * fact.scale)
  assert float(fact.bits) == 2


@pytest.mark.parametrize('w', [jnp.zeros(4), jnp.array([.5, .25]), jnp.array([-1.])])
def test_sides_without_weights_are_finite_and_positive(w):
  rule = quantize.trained_ternary()
  slots = rule.init(KEY, w)
  y, pull = jax.vjp(lambda w, phi: rule.apply(w, phi, {}, None), w, slots.phi)
  assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((y, pull(y))))
  assert bool((jnp.diff(rule.facts(slots, True).levels) > 0).all())
  assert not w.any() or float(slots.phi['positive']) == float(jnp.mean(jnp.abs(w)))


def test_a_scale_below_the_floor_can_come_back():
  rule, phi = quantize.trained_ternary(), {'positive': jnp.float32(-1), 'negative': jnp.float32(0)}
  np.testing.assert_array_equal(np.unique(rule.apply(W, phi, {}, None)), [-FLOOR, 0., FLOOR])
  gradient = jax.grad(lambda phi: jnp.sum((rule.apply(W, phi, {}, None) - W)**2))(phi)
  assert gradient['positive'] < 0 and gradient['negative'] < 0  # descent enlarges both


def test_export_refuses_it_by_name():
  rule = quantize.trained_ternary()
  slots = rule.init(KEY, W[0, 0])
  facts = {'w': rule.facts(slots, True)}
  with pytest.raises(EffjaxError, match="finalize: the codes of 'w' are numbers of levels, and kernels multiply by codes times scale"):
    finalize(lambda p, x: x @ p['w'], {'w': rule.apply(*slots, None)}, facts, {'input': (.1, 0, 8), 'w': (.1, 0, 8)},
             jnp.ones((1, 4)))


@pytest.mark.parametrize('threshold', [-.1, 1.])
def test_other_thresholds_are_refused(threshold):
  with pytest.raises(EffjaxError, match=rf'trained_ternary: threshold must be from 0 to below 1, got {threshold}: a part of max\|w\|'):
    quantize.trained_ternary(threshold=threshold)


def test_weights_that_are_not_finite_are_refused():
  with pytest.raises(EffjaxError, match=r'trained_ternary: an array of shape \(2,\) has entries that are not finite'):
    quantize.trained_ternary().init(KEY, jnp.array([1., jnp.nan]))
