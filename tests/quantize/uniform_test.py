"""Uniform grids against a float64 reference written from section 2.1 of the paper."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import export, quantize
from effjax.errors import EffjaxError

KEY = jax.random.key(3)
W = jax.random.normal(KEY, (3, 3, 4, 8)) + .3


def reference(w, bits, symmetric, axes):
  """Values in float64 of scales in float32, which decide ties."""
  if symmetric:
    scale, zero = np.float32(np.abs(w).max(axes, keepdims=True) * np.float32(1 / (2**(bits - 1) - 1))), 0
    low, high = 1 - 2**(bits - 1), 2**(bits - 1) - 1
  else:
    ends = np.minimum(w.min(axes, keepdims=True), 0), np.maximum(w.max(axes, keepdims=True), 0)
    scale = np.float32((ends[1] - ends[0]) * np.float32(1 / (2**bits - 1)))
    zero, low, high = np.rint(-ends[0] / scale), 0, 2**bits - 1
  codes = np.clip(np.rint(w * (np.float32(1) / scale)) + zero, low, high) - zero
  return np.float64(codes) * np.float64(scale)


@pytest.mark.parametrize('bits', [2, 4, 8, 16])
@pytest.mark.parametrize('symmetric', [True, False])
@pytest.mark.parametrize('per_channel', [True, False])
def test_values_and_gradients(bits, symmetric, per_channel):
  rule = quantize.uniform(bits, symmetric=symmetric, per_channel=per_channel)
  y, pull = jax.vjp(lambda w: rule.apply(w, {}, {}, KEY), W)
  expected = reference(np.asarray(W), bits, symmetric, (0, 1, 2) if per_channel else (0, 1, 2, 3))
  np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-7)
  np.testing.assert_array_equal(pull(jnp.cos(W))[0], jnp.cos(W))


@pytest.mark.parametrize('symmetric', [True, False])
def test_the_error_is_at_most_half_a_step_and_zero_stays(symmetric):
  rule = quantize.uniform(4, symmetric=symmetric)
  slots = rule.init(KEY, W.at[0, 0].set(0.))
  y, fact = rule.apply(*slots, None), rule.facts(slots, True)
  assert float(jnp.max(jnp.abs(y - slots.theta) / fact.scale)) <= .5 + 1e-5 + (not symmetric) * .5
  np.testing.assert_array_equal(y[0, 0], 0.)


@pytest.mark.parametrize('symmetric', [True, False])
@pytest.mark.parametrize('block', [16, 7, 1000])
def test_blocks_are_grids_of_their_own(block, symmetric):
  rule = quantize.uniform(4, block=block, symmetric=symmetric)
  y = rule.apply(*rule.init(KEY, W), None).ravel()
  one = quantize.uniform(4, per_channel=False, symmetric=symmetric)
  for i in range(0, W.size, block):
    np.testing.assert_array_equal(y[i:i + block], one.apply(*one.init(KEY, W.ravel()[i:i + block]), None))


def test_export_refuses_an_offset():
  rule = quantize.uniform(8, symmetric=False)
  slots = rule.init(KEY, W[0, 0])
  with pytest.raises(EffjaxError, match=r"finalize: the codes of 'w' are asymmetric \(an offset\), and kernels multiply"):
    export.finalize(lambda p, x: x @ p['w'], {'w': rule.apply(*slots, None)}, {'w': rule.facts(slots, True)},
                    {'input': (.1, 0, 8), 'w': (.1, 0, 8)}, jnp.ones((1, 4)))


def test_init_under_jit_of_known_weights():
  rule = quantize.uniform(8)
  assert jax.jit(lambda: rule.init(KEY, W))().theta.shape == W.shape


def test_zeros_stay_zeros():
  rule = quantize.uniform(8, symmetric=False)
  np.testing.assert_array_equal(rule.apply(*rule.init(KEY, jnp.zeros((4, 2))), None), 0.)


@pytest.mark.parametrize(('options', 'w', 'message'), [
    ({'bits': 1}, W, 'uniform: bits must be a whole number from 2 to 16, got 1'),
    ({'bits': 17}, W, 'uniform: bits must be a whole number from 2 to 16, got 17'),
    ({'block': 0}, W, 'uniform: block must be a whole number from 1 on, got 0'),
    ({'channel_axis': 4}, W, r'uniform: channel_axis 4 of an array of shape \(3, 3, 4, 8\): wanted -4 to 3'),
    ({}, W.at[0].set(jnp.nan), r'uniform: an array of shape \(3, 3, 4, 8\) has entries that are not finite'),
    ({}, jnp.ones(3), r'uniform: per_channel wants at least 2 axes, got shape \(3,\)')])
def test_errors(options, w, message):
  with pytest.raises(EffjaxError, match=message):
    quantize.uniform(**options).init(KEY, w)
