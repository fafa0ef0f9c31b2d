"""GPTQ against the plain recursion of optimal brain quantization in float64."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError


def problem(seed, n=24, m=6, rank=6):
  random = np.random.default_rng(seed)
  x = random.normal(size=(200, rank)) @ random.normal(size=(rank, n)) + .3 * random.normal(size=(200, n))
  return jnp.asarray(random.normal(size=(n, m)), jnp.float32), jnp.asarray(x.T @ x, jnp.float32)


def error(w, q, gram):
  off = np.float64(w) - np.float64(q)
  return np.trace(off.T @ np.float64(gram) @ off)


def nearest(w, scale, largest):
  return np.asarray(scale) * np.clip(np.rint(np.asarray(w) / np.asarray(scale)), -largest, largest)


def reference(w, gram, scale, largest, damping, places):
  """The inverse Hessian of what is left, one input eliminated after another."""
  w, gram = np.float64(w), np.float64(gram)
  gram = gram + np.diag(np.full(len(gram), damping * np.diag(gram).mean()))
  left, found = list(places), np.zeros_like(w)
  inverse = np.linalg.inv(gram[np.ix_(left, left)])
  while left:
    i = left[0]
    found[i] = nearest(w[i], scale[0], largest)
    w[left] -= np.outer(inverse[0] / inverse[0, 0], w[i] - found[i])
    left = left[1:]
    inverse = (inverse - np.outer(inverse[0], inverse[0]) / inverse[0, 0])[1:, 1:]
  return found


@pytest.mark.parametrize('order', [False, True])
@pytest.mark.parametrize('block', [1, 5, 128])
def test_it_is_the_plain_recursion(order, block):
  w, gram = problem(3, n=12, m=4)
  found, scale = quantize.gptq(w, gram, 3, order=order, block=block)
  places = np.argsort(-np.diag(np.asarray(gram)), kind='stable') if order else np.arange(12)
  np.testing.assert_allclose(found, reference(w, gram, np.asarray(scale), 3, .01, places), rtol=1e-5, atol=1e-6)


def test_inputs_without_correlation_are_rounded_to_nearest():
  w, _ = problem(0)
  found, scale = quantize.gptq(w, jnp.eye(24), 4)
  np.testing.assert_allclose(found, nearest(w, scale, 7), rtol=1e-6)


@pytest.mark.parametrize('order', [False, True])
def test_outputs_are_nearer_in_the_mean(order):
  fit = jax.jit(lambda w, gram: quantize.gptq(w, gram, 3, order=order))
  ours, plain = [], []
  for seed in range(30):
    w, gram = problem(seed)
    found, scale = fit(w, gram)
    ours.append(error(w, found, gram))
    plain.append(error(w, nearest(w, scale, 3), gram))
  assert np.mean(ours) < np.mean(plain)


def test_codes_are_on_the_grid_that_was_given():
  w, gram = problem(1)
  scale = jnp.full((1, 6), .3)
  found, same = quantize.gptq(w.astype(jnp.bfloat16), gram, 4, scale=scale)
  assert found.dtype == jnp.bfloat16
  np.testing.assert_array_equal(same, scale)
  found = quantize.gptq(w, gram, 4, scale=scale)[0]
  codes = np.asarray(quantize.codes(found, scale))
  assert np.abs(codes).max() <= 7
  np.testing.assert_array_equal(codes.astype(np.float32) * np.asarray(scale), found)


def test_an_input_that_is_always_zero_and_nothing_at_all():
  w, gram = problem(2)
  gram = gram.at[3].set(0.).at[:, 3].set(0.)
  found, scale = quantize.gptq(w, gram, 4)
  np.testing.assert_allclose(found[3], nearest(w, scale, 7)[3], rtol=1e-6)
  found, scale = quantize.gptq(w, jnp.zeros((24, 24)), 4)
  np.testing.assert_allclose(found, nearest(w, scale, 7), rtol=1e-6)
  assert not np.any(quantize.gptq(jnp.zeros((24, 6)), gram, 4)[0])


@pytest.mark.parametrize(('options', 'message'), [
    ({'bits': 9}, 'bits must be a whole number from 2 to 8, got 9'),
    ({'damping': 0.}, 'gptq: damping must be positive and block at least 1, got 0.0 and 128'),
    ({'block': 0}, 'gptq: damping must be positive and block at least 1, got 0.01 and 0')])
def test_errors(options, message):
  with pytest.raises(EffjaxError, match=message):
    quantize.gptq(*problem(0), **options)


def test_weights_that_are_not_finite():
  w, gram = problem(0)
  with pytest.raises(EffjaxError, match=r'gptq: an array of shape \(24, 6\) has entries that are not finite'):
    quantize.gptq(w.at[0, 0].set(jnp.nan), gram)
