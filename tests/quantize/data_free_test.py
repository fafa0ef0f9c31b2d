"""Equalisation and bias correction: the function stays, the ranges and the means come together."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.quantize.bias_correction import mean_outputs

RANDOM = np.random.default_rng(4)


def draw(*shape):
  return jnp.asarray(RANDOM.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), jnp.float32)


def uneven(w, axis=-1):
  factors = np.geomspace(.05, 20, w.shape[axis])
  return w * jnp.asarray(factors.reshape([-1 if i == axis % w.ndim else 1 for i in range(w.ndim)]), jnp.float32)


def conv(w, x, groups=1):
  numbers = ('NHWC', 'HWIO', 'NHWC')
  return jax.lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=numbers, feature_group_count=groups)


def pair(p, x):
  return jax.nn.relu(x @ p['a'] + p['b']) @ p['c']


PAIR = {'a': uneven(draw(5, 8)), 'b': draw(1, 8), 'c': draw(8, 3)}
X = draw(16, 5) * 4


def test_a_pair_has_equal_ranges_and_the_papers_factor():
  found = quantize.equalize(pair, PAIR, X)
  made, read = (np.abs(np.asarray(found[path])).max(axis) for path, axis in (('a', 0), ('c', 1)))
  np.testing.assert_allclose(made, read, rtol=1e-5)
  r1, r2 = np.abs(np.float64(PAIR['a'])).max(0), np.abs(np.float64(PAIR['c'])).max(1)
  s = np.sqrt(r1 * r2) / r2
  for path, factor in (('a', 1 / s[None]), ('b', 1 / s[None]), ('c', s[:, None])):
    np.testing.assert_allclose(found[path], np.asarray(PAIR[path]) * factor, rtol=1e-4)
  np.testing.assert_allclose(pair(found, X), pair(PAIR, X), rtol=1e-5, atol=1e-5)


def chain(p, x):
  x = jax.nn.relu(conv(p['a'], x) + p['ab'])
  x = jax.nn.relu(conv(p['d'], x, x.shape[-1]) + p['db'])
  x = jax.nn.relu(conv(p['c'], x))
  y = x + jax.nn.relu(conv(p['e'], x))
  return y.mean((1, 2)) @ p['f']


CHAIN = {'a': uneven(draw(3, 3, 2, 6)), 'ab': draw(1, 1, 1, 6), 'd': draw(3, 3, 1, 6) * 2, 'db': draw(1, 1, 1, 6),
         'c': uneven(draw(1, 1, 6, 8)), 'e': draw(3, 3, 8, 8), 'f': draw(8, 4)}
IMAGES = jnp.asarray(RANDOM.normal(size=(4, 5, 5, 2)), jnp.float32)


def test_depthwise_layers_and_residual_streams_stay_the_same_function():
  found = quantize.equalize(chain, CHAIN, IMAGES)
  exact = chain(CHAIN, IMAGES)
  np.testing.assert_allclose(chain(found, IMAGES), exact, atol=1e-5 * float(jnp.abs(exact).max()))
  np.testing.assert_array_equal(found['d'], CHAIN['d'])
  largest = lambda path, axis: np.abs(np.asarray(found[path])).max(tuple(i for i in range(found[path].ndim) if i != axis))
  np.testing.assert_allclose(largest('a', 3), largest('c', 2), rtol=1e-2)
  made = np.maximum(largest('c', 3), largest('e', 3))
  np.testing.assert_allclose(made, np.maximum(largest('e', 2), largest('f', 0)), rtol=1e-2)


def test_one_scale_for_a_layer_loses_less_afterwards():
  def error(params):
    rule = quantize.uniform(8, per_channel=False)
    rounded = {path: rule.apply(*rule.init(None, w), None) if path in 'ac' else w for path, w in params.items()}
    return float(jnp.mean((pair(rounded, X) - pair(PAIR, X))**2))

  assert error(quantize.equalize(pair, PAIR, X)) < error(PAIR)


def test_a_dead_channel_stays_and_other_groups_are_left_alone():
  params = PAIR | {'a': PAIR['a'].at[:, 0].set(0.)}
  found = quantize.equalize(pair, params, X)
  np.testing.assert_array_equal(found['c'][0], params['c'][0])
  mixed = lambda p, x: jax.nn.sigmoid(pair(p, x)) @ p['d']
  params = PAIR | {'d': draw(3, 2)}
  found = quantize.equalize(mixed, params, X)
  np.testing.assert_array_equal(found['d'], params['d'])
  np.testing.assert_allclose(mixed(found, X), mixed(params, X), rtol=1e-5, atol=1e-6)
  assert bool(jnp.any(found['c'] != params['c']))


@pytest.mark.parametrize('act', [jax.nn.relu6, jax.nn.sigmoid, jax.nn.gelu])
def test_what_no_factor_passes_is_refused(act):
  fn = lambda p, x: act(x @ p['a']) @ p['c']
  with pytest.raises(EffjaxError, match='equalize: none of 1 groups of channels can be scaled: wanted layers joined by'):
    quantize.equalize(fn, {'a': PAIR['a'], 'c': PAIR['c']}, X)


def test_no_sweep():
  with pytest.raises(EffjaxError, match='equalize: sweeps must be at least 1, got 0'):
    quantize.equalize(pair, PAIR, X, sweeps=0)


def rounded(params, kernels):
  rule = quantize.uniform(3)
  return {path: rule.apply(*rule.init(None, w), None) if path in kernels else w for path, w in params.items()}


def biased(p, x):
  x = jax.nn.relu(conv(p['a'], x) + p['ab'])
  x = jax.nn.relu((conv(p['c'], x) - p['mean']) * p['gain'] + p['cb'])
  return x.mean((1, 2)) @ p['f'] + p['fb']


BIASED = {'a': draw(3, 3, 2, 6), 'ab': draw(1, 1, 1, 6), 'c': draw(3, 3, 6, 8), 'mean': draw(1, 1, 1, 8),
          'gain': draw(1, 1, 1, 8) + 2., 'cb': draw(1, 1, 1, 8), 'f': draw(8, 4), 'fb': draw(1, 4)}


def test_mean_outputs_agree_after_correction():
  low = rounded(BIASED, 'acf')
  batches = [IMAGES, 2 * IMAGES[::-1], (IMAGES - .5,)]
  fixed = quantize.bias_correction(biased, BIASED, low, batches)
  mean = lambda params: np.mean([biased(params, *(b if isinstance(b, tuple) else (b,))) for b in batches], (0, 1))
  np.testing.assert_allclose(mean(fixed), mean(BIASED), atol=1e-5)
  assert np.abs(mean(low) - mean(BIASED)).max() > 1e-2
  assert {path for path in fixed if not np.array_equal(fixed[path], low[path])} == {'ab', 'cb', 'fb'}
  both = [mean_outputs(biased, params, IMAGES) for params in
          (BIASED, quantize.bias_correction(biased, BIASED, low, [IMAGES]))]
  assert list(both[0]) == ['ab', 'cb', 'fb']
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *both)


def test_mean_outputs_are_those_before_the_activation():
  found = mean_outputs(biased, BIASED, IMAGES)
  y = conv(BIASED['a'], IMAGES) + BIASED['ab']
  np.testing.assert_allclose(found['ab'], np.float64(y).mean((0, 1, 2), keepdims=True), atol=1e-5)


def test_what_cannot_be_corrected():
  with pytest.raises(EffjaxError, match='bias_correction: no batch was given'):
    quantize.bias_correction(biased, BIASED, BIASED, [])
  with pytest.raises(EffjaxError, match='bias_correction: no leaf is added to the result of a convolution or product'):
    quantize.bias_correction(lambda p, x: x @ p, jnp.eye(5), jnp.eye(5), [X])
