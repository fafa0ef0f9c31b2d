"""XNOR-Net's weights against equations 6 and 7 of the paper, and the gradient of its section 3.1."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError

KEY = jax.random.key(3)
W = jax.random.normal(KEY, (3, 3, 4, 8))


@pytest.mark.parametrize('per_channel', [True, False])
def test_values_and_gradient(per_channel):
  rule = quantize.xnor(per_channel=per_channel)
  axes, n = ((0, 1, 2), 36) if per_channel else ((0, 1, 2, 3), 288)
  w, t = np.float64(W), jax.random.normal(jax.random.fold_in(KEY, 1), W.shape)
  scale = np.abs(w).mean(axes, keepdims=True)
  y, pull = jax.vjp(lambda w: rule.apply(w, {}, {}, KEY), W)
  np.testing.assert_allclose(y, scale * np.sign(w), rtol=1e-6)
  np.testing.assert_allclose(pull(t)[0], np.float64(t) * (1 / n + scale * (np.abs(w) <= 1)), rtol=1e-5)
  np.testing.assert_allclose(rule.facts(rule.init(KEY, W), True).scale, scale, rtol=1e-6)


def test_sign_and_mean_are_the_pair_of_least_squared_error():
  b = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1).T
  rule = quantize.xnor(per_channel=False)
  for w in np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32):
    y = np.float64(rule.apply(*rule.init(KEY, jnp.asarray(w)), None))
    best = np.sum(np.float64(w)**2) - (b @ np.float64(w)).max()**2 / 8
    np.testing.assert_allclose(np.sum((y - w)**2), best, rtol=1e-5)


def test_the_error_of_gaussian_weights():
  w = jax.random.normal(KEY, (2**16,))
  rule = quantize.xnor(per_channel=False)
  np.testing.assert_allclose(jnp.mean((rule.apply(*rule.init(KEY, w), None) - w)**2), 1 - 2 / np.pi, atol=.01)


@pytest.mark.parametrize('w', [jnp.zeros((4, 2)), jnp.array([[3.], [0.]]), jnp.ones((1, 1))])
def test_zeros_are_finite_and_positive(w):
  rule = quantize.xnor()
  slots = rule.init(KEY, w)
  y, scale = rule.apply(*slots, None), rule.facts(slots, True).scale
  assert set(np.unique(quantize.codes(y, scale))) <= {-1, 1} and bool((scale > 0).all())
  np.testing.assert_array_equal(y, jnp.broadcast_to(scale, w.shape))


@pytest.mark.parametrize(('options', 'w', 'message'), [
    ({'channel_axis': 4}, W, r'xnor: channel_axis 4 of an array of shape \(3, 3, 4, 8\): wanted -4 to 3'),
    ({}, jnp.ones(3), r'xnor: per_channel wants at least 2 axes, got shape \(3,\)'),
    ({}, W.at[0].set(jnp.nan), r'xnor: an array of shape \(3, 3, 4, 8\) has entries that are not finite')])
def test_errors(options, w, message):
  with pytest.raises(EffjaxError, match=message):
    quantize.xnor(**options).init(KEY, w)
