"""LSQ against a float64 reference written from equations 1 to 3 and section 2.2 of the paper."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.quantize.lsq import FLOOR, initial_scale, largest_code
from effjax.quantize.lsq import quantize as fake

KEY = jax.random.key(5)


def reference(w, s, bits, per_scale):
  """Values, dy/dw and dy/ds in float64, of the ratio in float32, which decides ties and saturation."""
  q, v = 2**(bits - 1) - 1, np.float64(np.asarray(w) * (np.float32(1) / np.asarray(s)))
  s = np.float64(s)
  value = np.rint(np.clip(v, -q, q)) * s
  slope = np.where(v < -q, -q, np.where(v > q, q, np.rint(v) - v))
  return value, (np.abs(v) <= q) * 1., slope / np.sqrt(per_scale * q)


@pytest.mark.parametrize('bits', range(2, 9))
def test_values_and_gradients(bits):
  w = jax.random.normal(KEY, (3, 3, 4, 8))
  s = initial_scale(w, bits) * jnp.linspace(0.5, 2., 8).reshape(1, 1, 1, 8)
  t = jax.random.normal(jax.random.fold_in(KEY, 1), w.shape)
  y, pull = jax.vjp(lambda w, s: fake(w, s, bits), w, s)
  value, by_w, by_s = reference(w, s, bits, 36)
  dw, ds = pull(t)
  np.testing.assert_allclose(y, value, rtol=1e-6)
  np.testing.assert_array_equal(dw, by_w.astype(np.float32) * t)
  np.testing.assert_allclose(ds, (by_s * np.float64(t)).sum((0, 1, 2), keepdims=True), rtol=2e-4, atol=1e-5)


def test_forward_mode_is_the_same_derivative():
  w, s = jax.random.normal(KEY, (4, 4)), jnp.full((1, 4), 0.2)
  dw, ds = jax.random.normal(jax.random.fold_in(KEY, 1), w.shape), jnp.linspace(-1., 1., 4).reshape(1, 4)
  _, dy = jax.jvp(lambda w, s: fake(w, s, 3), (w, s), (dw, ds))
  _, by_w, by_s = reference(w, s, 3, 4)
  np.testing.assert_allclose(dy, by_w * dw + by_s * ds, rtol=1e-4, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.float32, (4, 3), elements=st.floats(-8, 8, width=32)), st.integers(2, 8))
def test_deployed_weights_are_codes_times_scale_bitwise(w, bits):
  rule = quantize.lsq(bits)
  slots = rule.init(KEY, jnp.asarray(w))
  y, fact = rule.apply(*slots, None), rule.facts(slots, True)
  codes = np.asarray(quantize.codes(y, fact.scale))
  assert np.abs(codes).max() <= 2**(bits - 1) - 1
  assert (codes.astype(np.float32) * np.asarray(fact.scale)).tobytes() == np.asarray(y).tobytes()
  assert float(fact.bits) == bits


def test_both_ends_of_the_range_and_the_codes_in_it_are_used():
  w = jnp.linspace(-1., 1., 255).reshape(255, 1)
  rule = quantize.lsq(8)
  slots = rule.init(KEY, w)
  codes = quantize.codes(rule.apply(*slots, None), rule.facts(slots, True).scale)
  np.testing.assert_array_equal(np.unique(codes), np.arange(-127, 128))


def test_no_negative_zero():
  y = fake(jnp.array([-1e-9, -0.1]), jnp.array([1.]), 8)
  assert not np.signbit(np.asarray(y)).any()


def test_zeros_are_not_nan_and_dead_channels_keep_a_positive_scale():
  w = jax.random.normal(KEY, (3, 3, 4, 8)).at[..., 2].set(0.)
  rule = quantize.lsq(8)
  for weights in (w, jnp.zeros_like(w)):
    slots = rule.init(KEY, weights)
    out, pull = jax.vjp(lambda w, phi: rule.apply(w, phi, {}, None), weights, slots.phi)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((out, pull(out))))
    assert bool((rule.facts(slots, True).scale > 0).all())


@pytest.mark.parametrize('learned', [0., -1., 1e-30])
def test_a_scale_below_the_floor_is_floored_and_can_come_back(learned):
  rule, w = quantize.lsq(4), jax.random.normal(KEY, (4, 2))
  phi = {'scale': jnp.full((1, 2), learned)}
  np.testing.assert_array_equal(rule.facts(rule.init(KEY, w)._replace(phi=phi), True).scale, FLOOR)
  np.testing.assert_array_equal(rule.apply(w, phi, {}, None), 7 * FLOOR * jnp.sign(w))
  grad = jax.grad(lambda phi: jnp.sum((rule.apply(w, phi, {}, None) - w)**2))(phi)['scale']
  assert bool((grad < 0).all())  # descent enlarges it


@pytest.mark.parametrize('bits', [2, 3, 4, 8])
def test_the_initial_scale_is_no_worse_than_the_papers_or_the_largest_weight(bits):
  w = jax.random.normal(KEY, (3, 3, 16, 8))
  q = largest_code(bits)
  top = jnp.max(jnp.abs(w), (0, 1, 2), keepdims=True) / q
  paper = 2. * jnp.mean(jnp.abs(w), (0, 1, 2), keepdims=True) / jnp.sqrt(jnp.float32(q))
  error = lambda s: float(jnp.mean((fake(w, s, bits) - w)**2))
  assert error(initial_scale(w, bits)) <= min(1.02 * error(paper), error(top))


def test_shapes_of_the_scale():
  w = jnp.ones((3, 3, 4, 8))
  scale = lambda rule: rule.init(KEY, w).phi['scale'].shape
  assert scale(quantize.lsq(8)) == (1, 1, 1, 8)
  assert scale(quantize.lsq(8, channel_axis=0)) == (3, 1, 1, 1)
  assert scale(quantize.lsq(8, per_channel=False)) == (1, 1, 1, 1)


def test_bfloat16_weights_are_rounded_codes_times_a_float32_scale():
  w = jax.random.normal(KEY, (16, 4), jnp.bfloat16)
  rule = quantize.lsq(8)
  slots = rule.init(KEY, w)
  y = rule.apply(*slots, None)
  assert y.dtype == jnp.bfloat16 and slots.phi['scale'].dtype == jnp.float32
  expected = fake(w.astype(jnp.float32), slots.phi['scale'], 8).astype(jnp.bfloat16)
  np.testing.assert_array_equal(y.astype(jnp.float32), expected.astype(jnp.float32))


@pytest.mark.parametrize('bits', [1, 9, 0])
def test_wrong_bits_are_refused(bits):
  with pytest.raises(EffjaxError, match=f'lsq: bits must be a whole number from 2 to 8, got {bits}: int8 kernels hold'):
    quantize.lsq(bits)


def test_a_bias_per_channel_is_refused():
  with pytest.raises(EffjaxError, match=r'lsq: per_channel wants at least 2 axes, got shape \(8,\)'):
    quantize.lsq(8).init(KEY, jnp.ones(8))
  assert quantize.lsq(8, per_channel=False).init(KEY, jnp.ones(8)).phi['scale'].shape == (1,)


def test_weights_that_are_not_finite_are_refused():
  with pytest.raises(EffjaxError, match=r'lsq: an array of shape \(2, 2\) has entries that are not finite'):
    quantize.lsq(4).init(jax.random.key(0), jnp.array([[1., jnp.inf], [0., 1.]]))
