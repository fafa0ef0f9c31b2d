"""Observed ranges, alone and in a network: set once, from batches, and moved by a step on one and on four devices."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.export import finalize, simulate

KEY = jax.random.key(2)
X = jnp.asarray(np.random.default_rng(0).normal(size=(64, 9)) * 2 + .5, jnp.float32)
FOUND = {'min_max': quantize.min_max, 'percentile': quantize.percentile, 'mse': quantize.mse}
each = pytest.mark.parametrize('name', FOUND)


def reference(x, low, high, bits):
  first, last = -2**(bits - 1), 2**(bits - 1) - 1
  scale = np.float32(high - low) * np.float32(1 / (last - first))
  zero = np.clip(np.rint(first - low / scale), first, last)
  return np.float64(scale) * (np.clip(np.rint(np.asarray(x) / scale) + zero, first, last) - zero)


@each
@pytest.mark.parametrize('bits', [2, 4, 8])
def test_values_and_gradients(name, bits):
  quantizer = FOUND[name](bits)
  phi = quantizer.init(X)
  low, high = (float(phi[end]) for end in ('low', 'high'))
  y, pull = jax.vjp(quantizer.apply, phi, X)
  np.testing.assert_allclose(y, reference(X, low, high, bits), rtol=1e-5, atol=1e-5)
  by_phi, by_x = pull(jnp.cos(X))
  assert not any(bool(jnp.any(g != 0)) for g in jax.tree.leaves(by_phi))
  scale, zero = quantizer.facts(phi)
  v = np.asarray(X) / np.asarray(scale) + np.asarray(zero)
  inside = (v >= -2**(bits - 1)) & (v <= 2**(bits - 1) - 1)
  np.testing.assert_array_equal(by_x, np.where(inside, np.asarray(jnp.cos(X)), np.float32(0)))


def test_ends_are_those_of_the_samples_and_zero():
  ends = lambda phi: (float(phi['low']), float(phi['high']))
  assert ends(quantize.min_max().init(X)) == (float(X.min()), float(X.max()))
  assert ends(quantize.min_max().init(jnp.array([2., 3.]))) == (0., 3.)
  expected = np.percentile(np.asarray(X, np.float64), [2., 98.])
  np.testing.assert_allclose(ends(quantize.percentile(8, 98.).init(X)), expected, rtol=1e-5)
  assert ends(quantize.percentile(8, 100.).init(X)) == ends(quantize.min_max().init(X))


def test_least_squares_is_no_worse_than_the_whole_range():
  x = jnp.append(X.ravel(), 40.)
  error = lambda quantizer: float(jnp.mean((quantizer.apply(quantizer.init(x), x) - x)**2))
  for bits in (2, 3, 4):
    assert error(quantize.mse(bits)) <= error(quantize.min_max(bits)) * (1 + 1e-5)
  assert error(quantize.mse(2)) < error(quantize.min_max(2))


@each
def test_sixteen_bits_are_around_zero_and_zeros_are_finite(name):
  quantizer = FOUND[name](16)
  scale, zero = quantizer.facts(quantizer.init(X))
  assert float(scale) > 0 and int(zero) == 0
  for bits in (8, 16):
    quantizer = FOUND[name](bits)
    phi = quantizer.init(jnp.zeros((4, 3)))
    np.testing.assert_array_equal(quantizer.apply(phi, jnp.zeros((4, 3))), 0.)
    assert all(np.isfinite(np.asarray(fact)) for fact in quantizer.facts(phi))


def test_bfloat16_is_kept():
  quantizer = quantize.min_max()
  phi = quantizer.init(X.astype(jnp.bfloat16))
  assert phi['low'].dtype == jnp.float32 and quantizer.apply(phi, X.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_errors():
  with pytest.raises(EffjaxError, match=r'percentile: p must be above 50 and at most 100, got 50.0: 99.99 leaves out'):
    quantize.percentile(8, 50.)
  with pytest.raises(EffjaxError, match='bits must be 2 to 8, or 16, got 9'):
    quantize.min_max(9)


def conv(w, x):
  return jax.lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def network(p, x):
  x = jax.nn.relu(conv(p['a'], x) + p['bias'])
  x = jax.nn.relu(conv(p['b'], x))
  return x.mean((1, 2)) @ p['head']


def setting():
  random = np.random.default_rng(3)
  draw = lambda *shape: jnp.asarray(random.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), jnp.float32)
  params = {'a': draw(3, 3, 2, 8), 'bias': draw(1, 1, 1, 8), 'b': draw(3, 3, 8, 8), 'head': draw(8, 5)}
  return params, [jnp.asarray(random.normal(size=(4, 6, 6, 2)) * (1 + i), jnp.float32) for i in range(3)]


@pytest.mark.parametrize('name', ['min_max', 'mse'])
def test_post_training_quantization_end_to_end(name):
  params, batches = setting()
  quantizer = FOUND[name]()
  found = quantize.calibrate(quantize.aware(network, params, batches[0], quantizer=quantizer), batches)
  fixed = quantize.deployed(found, found.reparam.init(KEY, found.params))
  integers = finalize(network, *fixed, batches[0])
  x = jnp.concatenate(batches)
  exact, got = jax.jit(network)(params, x), jax.jit(lambda x: simulate(integers, x))(x)
  assert float(jnp.sqrt(jnp.mean((got - exact)**2))) < .05 * float(jnp.sqrt(jnp.mean(exact**2)))
  assert float(jnp.sqrt(jnp.mean((jax.jit(found.apply)(found.params, x) - exact)**2))) > 0


@each
def test_calibration_pools_the_batches(name):
  params, batches = setting()
  found = quantize.aware(network, params, batches[0], quantizer=FOUND[name]())
  pooled = quantize.aware(network, params, jnp.concatenate(batches), quantizer=FOUND[name]()).params['ranges']
  got = quantize.calibrate(found, batches).params['ranges']
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, pooled)
  if name == 'min_max':
    few = quantize.calibrate(found, [(batch,) for batch in batches], entries=5).params['ranges']
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), few, pooled)


def test_a_step_moves_ranges_and_nothing_else_in_one_trace():
  params, batches = setting()
  found = quantize.aware(network, params, batches[0], quantizer=quantize.min_max())
  count = 0

  @jax.jit
  def step(params, x):
    nonlocal count
    count += 1
    return quantize.update_ranges(found, params, x, momentum=.9)

  moved, expected = found.params, found.params['ranges']['input']
  for batch in batches:
    moved = step(moved, batch)
    expected = {'low': .9 * expected['low'] + .1 * batch.min(), 'high': .9 * expected['high'] + .1 * batch.max()}
  assert count == 1
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), moved['ranges']['input'], expected)
  jax.tree.map(np.testing.assert_array_equal, moved['weights'], params)
  assert not any(leaf.weak_type for leaf in jax.tree.leaves(moved))


@each
def test_four_devices_have_the_ranges_of_one(name):
  params, batches = setting()
  found = quantize.aware(network, params, batches[0], quantizer=FOUND[name]())
  x = jnp.concatenate(batches[:2])
  one = quantize.update_ranges(found, found.params, x, momentum=.5)['ranges']
  step = jax.pmap(lambda x: quantize.update_ranges(found, found.params, x, momentum=.5, axis_name='d')['ranges'], 'd')
  four = step(x.reshape(4, 2, 6, 6, 2))
  jax.tree.map(lambda a: np.testing.assert_array_equal(np.asarray(a), np.asarray(a)[:1].repeat(4)), four)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a)[0], b, rtol=1e-5, atol=1e-6), four, one)


def test_what_cannot_be_calibrated():
  params, batches = setting()
  found = quantize.aware(network, params, batches[0], quantizer=quantize.min_max())
  with pytest.raises(EffjaxError, match='calibrate: no batch was given: wanted at least one'):
    quantize.calibrate(found, [])
  with pytest.raises(EffjaxError, match='calibrate: entries must be at least 1, got 0'):
    quantize.calibrate(found, batches, entries=0)
  with pytest.raises(EffjaxError, match=r'update_ranges: momentum must be from 0 to 1, got 1.5'):
    quantize.update_ranges(found, found.params, batches[0], momentum=1.5)
