"""Ternary weights against float64 references, brute force, and the optima of two densities."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.quantize.ternary import signs

KEY = jax.random.key(3)
W = jax.random.normal(KEY, (3, 3, 4, 8))


def reference(w, factor):
  """Values and scale of one array, in float64 (section 2.2 of the paper)."""
  w = np.float64(w)
  v = np.sort(np.abs(w).ravel())[::-1]
  if factor is None:
    best = (np.cumsum(v)**2 / np.arange(1, v.size + 1)).argmax()
    scale = v[:best + 1].mean()
    return np.where(np.abs(w) >= v[best], np.sign(w) * scale, 0), scale
  scale = v[v > factor * v.mean()].mean()
  return np.where(np.abs(w) > factor * v.mean(), np.sign(w) * scale, 0), scale


def deployed(w, **options):
  rule = quantize.ternary(**options)
  slots = rule.init(KEY, w)
  return rule.apply(*slots, None), rule.facts(slots, True)


@pytest.mark.parametrize('factor', [None, .7, .75])
@pytest.mark.parametrize('per_channel', [True, False])
def test_values_and_gradient(factor, per_channel):
  rule = quantize.ternary(factor=factor, per_channel=per_channel)
  y, pull = jax.vjp(lambda w: rule.apply(w, {}, {}, KEY), W)
  scale = rule.facts(rule.init(KEY, W), True).scale
  assert scale.shape == ((1, 1, 1, 8) if per_channel else (1, 1, 1, 1))
  for i in range(8):
    one = W[..., i] if per_channel else W
    value, expected = reference(one, factor)
    np.testing.assert_allclose(y[..., i] if per_channel else y, value, rtol=1e-6)
    np.testing.assert_allclose(scale[..., i if per_channel else 0], np.full((1, 1, 1), expected), rtol=1e-6)
  np.testing.assert_array_equal(pull(jnp.cos(W))[0], jnp.cos(W))


def test_the_exact_one_is_the_best_of_all_ternary_arrays():
  t = np.array(list(itertools.product((-1, 0, 1), repeat=8)), np.float64)
  t = t[np.any(t != 0, 1)]
  for w in np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32):
    y, fact = deployed(jnp.asarray(w), per_channel=False)
    best = np.sum(np.float64(w)**2) - ((t @ np.float64(w))**2 / np.sum(t**2, 1)).max()
    np.testing.assert_allclose(np.sum((np.float64(y) - w)**2), best, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(y) != 0, np.abs(w) > np.asarray(fact.scale) / 2)


def test_of_gaussian_weights():
  w = jnp.asarray(stats.norm.ppf((np.arange(2**17) + .5) / 2**17), jnp.float32)
  y, fact = deployed(w, per_channel=False)
  threshold = optimize.brentq(lambda d: stats.norm.pdf(d) / stats.norm.sf(d) - 2 * d, .1, 2.)  # Lloyd and Max
  np.testing.assert_allclose(fact.scale, 2 * threshold, rtol=1e-3)
  np.testing.assert_allclose([threshold, threshold * np.sqrt(np.pi / 2)], [.6120, .767], atol=1e-4)
  error = lambda **options: float(jnp.mean((deployed(w, per_channel=False, **options)[0] - w)**2))
  at = lambda d: 1 - 2 * stats.norm.pdf(d)**2 / stats.norm.sf(d)
  expected = [at(threshold), *(at(factor * np.sqrt(2 / np.pi)) for factor in (.7, .75))]
  np.testing.assert_allclose([error(), error(factor=.7), error(factor=.75)], expected, atol=2e-5)
  np.testing.assert_allclose(expected, [.19017, .19162, .19027], atol=1e-5)


def test_of_uniform_weights():
  w = jnp.linspace(-1., 1., 2**14)
  y, fact = deployed(w, per_channel=False)
  np.testing.assert_allclose(fact.scale, 2 / 3, rtol=1e-3)
  np.testing.assert_allclose(jnp.mean((y - w)**2), 1 / 27, rtol=1e-3)


@pytest.mark.parametrize('factor', [None, .7])
@pytest.mark.parametrize('w', [jnp.zeros((4, 2)), jnp.full((4, 2), -.5), jnp.array([[3.], [0.]]), jnp.full((4, 2), 1e-30)])
def test_degenerate_arrays(factor, w):
  y, fact = deployed(w, factor=factor)
  assert bool(jnp.isfinite(y).all()) and bool((fact.scale > 0).all())
  np.testing.assert_allclose(y, jnp.where(jnp.abs(w) > 1e-6, w, 0.), rtol=1e-6, atol=1e-5)
  assert not np.signbit(np.asarray(y)[np.asarray(y) == 0]).any()


def test_the_end_of_the_threshold_is_outside():
  np.testing.assert_array_equal(signs(jnp.array([.5, -.5, .6, -.6]), jnp.array([.5])), [0., 0., 1., -1.])


@pytest.mark.parametrize(('options', 'w', 'message'), [
    ({'factor': 0.}, W, r'ternary: factor must be above 0 and below 1, got 0.0: 0.7 is the papers, None is exact'),
    ({'factor': 1.}, W, r'ternary: factor must be above 0 and below 1, got 1.0'),
    ({'channel_axis': 4}, W, r'ternary: channel_axis 4 of an array of shape \(3, 3, 4, 8\): wanted -4 to 3'),
    ({}, jnp.ones(3), r'ternary: per_channel wants at least 2 axes, got shape \(3,\)'),
    ({}, W.at[0].set(jnp.inf), r'ternary: an array of shape \(3, 3, 4, 8\) has entries that are not finite')])
def test_errors(options, w, message):
  with pytest.raises(EffjaxError, match=message):
    quantize.ternary(**options).init(KEY, w)
