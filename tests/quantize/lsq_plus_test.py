import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.quantize.lsq_plus import SMALLEST_SCALE, lsq_plus
from effjax.quantize.observed import min_max, mse, percentile


def reference(x, scale, offset, low, high):
  """Float64: the value and its three derivatives, from equations 2 and 5-7 of the paper with beta = -scale z."""
  z = np.clip(np.rint(offset), low, high)
  v = x / scale
  code = np.clip(np.rint(v) + z, low, high)
  below, above = v + z < low, v + z > high
  by_scale = np.where(below, low - z, np.where(above, high - z, np.rint(v) - v))
  g = 1 / np.sqrt(np.prod(x.shape[1:]) * high)
  return scale * (code - z), ~(below | above), g * by_scale, g * np.where(below | above, -scale, 0.)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(st.integers(0, 999), st.sampled_from([2, 3, 4, 8]), st.floats(.01, .5), st.floats(-140, 140))
def test_value_and_gradient_are_those_of_the_paper(seed, bits, scale, offset):
  low, high = -2 ** (bits - 1), 2 ** (bits - 1) - 1
  x = np.random.default_rng(seed).normal(size=(3, 7)).astype(np.float32)
  scale, offset = np.float32(scale), np.float32(offset)
  quantizer, phi = lsq_plus(bits), {'scale': jnp.asarray(scale), 'offset': jnp.asarray(offset)}
  value, dx, dscale, doffset = reference(x.astype(np.float64), np.float64(scale), np.float64(offset), low, high)
  out, vjp = jax.vjp(quantizer.apply, phi, jnp.asarray(x))
  dphi, got = vjp(jnp.ones_like(out))
  np.testing.assert_allclose(out, value, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(got, dx)
  np.testing.assert_allclose(dphi['scale'], dscale.sum(), rtol=1e-4, atol=1e-3)
  np.testing.assert_allclose(dphi['offset'], doffset.sum(), rtol=1e-4, atol=1e-5)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(st.integers(0, 999), st.sampled_from([2, 5, 8]))
def test_idempotent_zero_exact_and_representable(seed, bits):
  x = np.random.default_rng(seed).normal(.3, 2, (8, 5)).astype(np.float32)
  x[0, 0] = 0
  quantizer = lsq_plus(bits)
  phi = quantizer.init(jnp.asarray(x))
  y = quantizer.apply(phi, jnp.asarray(x))
  scale, zero_point = quantizer.facts(phi)
  codes = np.rint(np.asarray(y) / scale).astype(int) + int(zero_point)
  assert y[0, 0] == 0
  assert codes.min() >= -2 ** (bits - 1) and codes.max() < 2 ** (bits - 1)
  np.testing.assert_array_equal(scale * (codes - zero_point).astype(np.float32), y)
  np.testing.assert_array_equal(quantizer.apply(phi, y), y)


def test_init_is_at_least_as_good_as_the_full_range():
  x = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
  quantizer = lsq_plus(4)
  error = lambda phi: float(jnp.square(quantizer.apply(phi, jnp.asarray(x)) - x).mean())
  scale = np.float32((x.max() - x.min()) / 15)
  full = {'scale': jnp.asarray(scale), 'offset': jnp.asarray(np.rint(-8 - x.min() / scale), jnp.float32)}
  assert error(quantizer.init(jnp.asarray(x))) < .8 * error(full)


def test_scale_at_the_floor_still_learns():
  phi = {'scale': jnp.float32(-1.), 'offset': jnp.float32(0.)}
  quantizer = lsq_plus()
  x = jnp.ones((1, 1))
  gradient = jax.grad(lambda phi: quantizer.apply(phi, x).sum())(phi)
  assert float(quantizer.facts(phi)[0]) == pytest.approx(SMALLEST_SCALE)
  assert float(gradient['scale']) > 0


@pytest.mark.parametrize('quantizer', [lsq_plus(), lsq_plus(zero_point=-128), min_max(), percentile(), mse()])
def test_samples_of_zero_start_with_the_range_to_1(quantizer):
  phi, x = quantizer.init(jnp.zeros((2, 2))), jnp.linspace(0, 1, 12).reshape(3, 4)
  np.testing.assert_array_equal(quantizer.apply(phi, jnp.zeros((2, 2))), 0.)
  np.testing.assert_allclose(quantizer.apply(phi, x), x, atol=.5 / 255 + 1e-6)


def test_dtype_kept_and_forward_mode_agrees():
  quantizer = lsq_plus()
  phi = quantizer.init(jnp.linspace(-1, 1, 12, dtype=jnp.float32).reshape(3, 4))
  assert quantizer.apply(phi, jnp.ones((2, 2), jnp.bfloat16)).dtype == jnp.bfloat16
  f = lambda scale: quantizer.apply({**phi, 'scale': scale}, jnp.full((1, 3), .37)).sum()
  np.testing.assert_allclose(jax.jacfwd(f)(phi['scale']), jax.grad(f)(phi['scale']), rtol=1e-6)


def test_gradient_does_not_depend_on_how_the_batch_is_divided():
  quantizer, x = lsq_plus(), jnp.linspace(-3, 3, 32, dtype=jnp.float32).reshape(8, 4)
  phi = quantizer.init(x / 2)
  loss = lambda phi, x: jnp.square(quantizer.apply(phi, x)).sum()
  whole = jax.grad(loss)(phi, x)
  halves = [jax.grad(loss)(phi, part) for part in (x[:4], x[4:])]
  np.testing.assert_allclose(halves[0]['scale'] + halves[1]['scale'], whole['scale'], rtol=1e-5)


@pytest.mark.parametrize('bits', [1, 9])
def test_bits_outside_are_refused(bits):
  with pytest.raises(EffjaxError, match=f'lsq_plus: bits must be 2 to 8, or 16, got {bits}: choose from these'):
    lsq_plus(bits)


def test_a_zero_point_that_does_not_train():
  quantizer = lsq_plus(zero_point=-128)
  phi = quantizer.init(jnp.asarray([[0., .5, 3.]]))
  assert set(phi) == {'scale'} and int(quantizer.facts(phi)[1]) == -128
  assert float(phi['scale']) == pytest.approx(3 / 255, rel=.1)
  wide = lsq_plus(16)
  x = jnp.asarray([[-2., .3, 1.]])
  phi = wide.init(x)
  assert set(phi) == {'scale'} and int(wide.facts(phi)[1]) == 0 and wide.bits == 16
  np.testing.assert_allclose(wide.apply(phi, x), x, atol=1e-4)
  for bits, zero_point, wanted in ((8, 200, 'in -128..127'), (16, 3, '0')):
    with pytest.raises(EffjaxError, match=f'lsq_plus: zero_point must be {wanted}, got {zero_point}: leave it out'):
      lsq_plus(bits, zero_point=zero_point)
