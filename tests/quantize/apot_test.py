"""APoT against a float64 reference written from equations 4 to 7 of the paper."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.export.kernels import codes_of

KEY = jax.random.key(6)
W = jax.random.normal(KEY, (3, 3, 4, 8)) * .1 + .02


def levels(bits, k):
  """Equation 4, by base k: n terms of k bits each."""
  n = bits // k
  sums = np.zeros(1)
  for i in range(n):
    term = np.array([0., *(2.**-(i + j * n) for j in range(2**k - 1))])
    sums = (sums[:, None] + term).ravel()
  return np.sort(sums) / sums.max()


def reference(w, alpha, magnitudes):
  w = np.float64(w)
  v = (w - w.mean()) / w.std()
  r = np.clip(v / alpha, -1, 1)
  q = np.sign(r) * magnitudes[np.abs(np.abs(r)[..., None] - magnitudes).argmin(-1)]
  outside = np.abs(v) > alpha
  return alpha * q, ~outside, np.where(outside, np.sign(v), q - v / alpha), v


@pytest.mark.parametrize(('bits', 'k'), [(2, 1), (3, 2), (5, 2), (4, 3), (5, 4), (7, 3), (8, 1), (7, 2)])
def test_values_and_gradients(bits, k):
  rule = quantize.apot(bits, k=k)
  phi, alpha = {'alpha': jnp.float32(1.75)}, 1.75

  @jax.jit
  def values_and_gradients(w, phi, g):
    y, pull = jax.vjp(lambda w, phi: rule.apply(w, phi, {}, KEY), w, phi)
    return y, *pull(g)

  value, inside, by_alpha, v = reference(W, alpha, levels(bits - 1, k))
  g = np.cos(9 * v)
  y, dw, dphi = values_and_gradients(W, phi, jnp.asarray(g, jnp.float32))
  np.testing.assert_allclose(y, value, atol=1e-6)
  np.testing.assert_allclose(dphi['alpha'], (g * by_alpha).sum(), rtol=1e-3, atol=1e-4)
  through = g * inside
  by_w = (through - through.mean() - v * (through * v).mean()) / np.float64(W).std()
  np.testing.assert_allclose(dw, by_w, rtol=1e-3, atol=1e-3)


def test_the_levels_of_the_paper_and_of_the_authors_code():
  four = np.sort([a + b for a in (0, 1, 1/4, 1/16) for b in (0, 1/2, 1/8, 1/32)])
  np.testing.assert_allclose(quantize.apot_levels(4), four / 1.5)
  three = np.sort([a + c for a in (0, 1/2, 1/4, 1/16) for c in (0, 1/8)])
  np.testing.assert_allclose(quantize.apot_levels(3), three / three.max())
  five = np.sort([a + b + c for a in (0, 1/2, 1/8, 1/64) for b in (0, 1/4, 1/16, 1/128) for c in (0, 1/32)])
  np.testing.assert_allclose(quantize.apot_levels(5), five / five.max())


@pytest.mark.parametrize('bits', range(2, 8))
def test_one_bit_a_term_is_a_uniform_grid(bits):
  np.testing.assert_allclose(quantize.apot_levels(bits, k=1), np.arange(2**bits) / (2**bits - 1), rtol=1e-6)


@pytest.mark.parametrize(('bits', 'k'), [(1, 1), (2, 2), (3, 2), (4, 2), (5, 2), (7, 2), (6, 3), (4, 4)])
def test_every_sum_is_a_level_of_its_own(bits, k):
  found = quantize.apot_levels(bits, k=k)
  assert len(found) == 2**bits and (np.diff(found) > 0).all() and found[0] == 0 and found[-1] == 1


@pytest.mark.parametrize('bits', [3, 4, 5, 7])
def test_levels_are_denser_around_zero_than_a_uniform_grid(bits):
  assert np.median(quantize.apot_levels(bits)) < .5


def test_the_scale_of_the_weights_does_not_matter():
  rule = quantize.apot(4)
  slots = rule.init(KEY, W)
  np.testing.assert_array_equal(rule.apply(*slots, None), rule.apply(W * 8, slots.phi, {}, None))


def test_no_negative_zero_and_levels_bitwise():
  rule = quantize.apot(4)
  slots = rule.init(KEY, W)
  y, fact = np.asarray(rule.apply(*slots, None)), rule.facts(slots, True)
  allowed = np.asarray(fact.levels) * np.asarray(fact.scale)
  assert set(y.ravel().tolist()) <= set(allowed.tolist())
  assert not np.signbit(y[y == 0]).any() and (y == 0).any()


@pytest.mark.parametrize('w', [jnp.zeros((3, 2)), jnp.full((3, 2), .3), jnp.ones((1, 1))])
def test_weights_without_variance_are_zeros_with_finite_gradients(w):
  rule = quantize.apot(4)
  slots = rule.init(KEY, w)
  y, pull = jax.vjp(lambda w, phi: rule.apply(w, phi, {}, None), w, slots.phi)
  np.testing.assert_allclose(y, 0., atol=1e-6)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(pull(jnp.ones_like(y))))


def test_a_clip_below_the_floor_comes_back():
  rule = quantize.apot(4)
  loss = lambda phi: jnp.sum((rule.apply(W, phi, {}, None) - W * 10)**2)
  assert float(jax.grad(loss)({'alpha': jnp.float32(-1.)})['alpha']) < 0


def test_export_refuses_it():
  rule = quantize.apot(4)
  slots = rule.init(KEY, W)
  with pytest.raises(EffjaxError, match="the codes of 'w' are numbers of levels"):
    codes_of('finalize', 'w', rule.apply(*slots, None), rule.facts(slots, True))


@pytest.mark.parametrize(('make', 'message'), [
    (lambda: quantize.apot(1), 'apot: bits must be a whole number from 2 to 8, got 1'),
    (lambda: quantize.apot(9), 'apot: bits must be a whole number from 2 to 8, got 9'),
    (lambda: quantize.apot(5, k=3), 'apot: k must be from 1 to 4 and divide the 4 bits without the sign, .* got 3'),
    (lambda: quantize.apot(2), 'divide the 1 bits without the sign, or be 2 from 2 bits on, got 2'),
    (lambda: quantize.apot(8, k=7), 'divide the 7 bits without the sign, .* got 7'),
    (lambda: quantize.apot(4, initial_clip=0.), 'apot: initial_clip must be above 0, got 0.0: the paper takes 3'),
    (lambda: quantize.apot(4).init(KEY, W / 0.), 'apot: an array of shape .* has entries that are not finite')])
def test_errors(make, message):
  with pytest.raises(EffjaxError, match=message):
    make()
