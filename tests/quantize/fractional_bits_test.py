"""FracBits against the interpolation of equation 3 of the paper, between grids that have tests of their own."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import cost, quantize
from effjax.errors import EffjaxError
from effjax.graph import profile
from effjax.quantize.lsq import quantize as fake

KEY = jax.random.key(2)
W = jax.random.normal(KEY, (3, 3, 4, 8))


def prepared(bits, **options):
  rule = quantize.fractional_bits(**options)
  slots = rule.init(KEY, W)
  return rule, slots._replace(phi=slots.phi | {'bits': jnp.float32(bits)})


def grid(slots, b, smallest=2):
  return np.float64(fake(W, slots.phi['scale'][b - smallest], b))


@pytest.mark.parametrize('bits', [2., 2.25, 3.9, 5., 7.5, 8.])
def test_values_and_gradient(bits):
  rule, slots = prepared(bits)
  lower = min(int(bits), 7)
  f, t = bits - lower, jax.random.normal(jax.random.key(5), W.shape)

  @jax.jit
  def values_and_gradients(phi):
    y, pull = jax.vjp(lambda phi: rule.apply(W, phi, {}, KEY), phi)
    return y, pull(t)[0], [jax.grad(lambda s, b=b: jnp.sum(t * fake(W, s, b)))(s)
                           for s, b in zip(phi['scale'], range(2, 9))]

  y, got, each = values_and_gradients(slots.phi)
  np.testing.assert_allclose(y, (1 - f) * grid(slots, lower) + f * grid(slots, lower + 1), rtol=1e-4, atol=1e-6)
  slope = (np.float64(t) * (grid(slots, lower + 1) - grid(slots, lower))).sum()
  np.testing.assert_allclose(got['bits'], slope, rtol=1e-3, atol=1e-4)
  shares = [{lower: 1 - f, lower + 1: f}.get(b, 0) for b in range(2, 9)]
  np.testing.assert_allclose(got['scale'], np.stack([p * np.asarray(g) for p, g in zip(shares, each)]), 1e-4, 1e-5)


@pytest.mark.parametrize(('bits', 'deployed'), [(2.4, 2), (2.6, 3), (4.5, 4), (7.9, 8), (1., 2), (9.7, 8)])
def test_deployed_is_the_nearest_width_exactly(bits, deployed):
  rule, slots = prepared(bits)
  fact = rule.facts(slots, True)
  assert float(fact.bits) == deployed
  np.testing.assert_array_equal(rule.apply(*slots, None), fake(W, slots.phi['scale'][deployed - 2], deployed))
  np.testing.assert_array_equal(fact.scale, slots.phi['scale'][deployed - 2])


@pytest.mark.parametrize('bits', [3., 3.25, 4.75])
def test_costs_are_differentiable_in_the_width(bits):
  rule, slots = prepared(bits)
  found = profile(lambda p, x: x @ p['w'].reshape(36, 8), {'w': W}, jnp.ones((1, 36)))
  bitops = lambda b: cost.bitops(found, {'w': rule.facts(slots._replace(phi=slots.phi | {'bits': b}), False)})
  value, slope = jax.jit(jax.value_and_grad(bitops))(jnp.float32(bits))
  assert float(value) == pytest.approx(36 * 8 * 8 * bits) and float(slope) == pytest.approx(36 * 8 * 8)
  flash = lambda b: cost.flash_bytes(found, {'w': rule.facts(slots._replace(phi=slots.phi | {'bits': b}), False)})
  assert float(jax.jit(jax.grad(flash))(jnp.float32(4.75))) == pytest.approx(36 * 8 * 4 / 8)  # int4 or int8


@pytest.mark.parametrize(('outside', 'limit'), [(1., 2.), (11., 8.)])
def test_outside_counts_as_the_limit_and_comes_back(outside, limit):
  (rule, there), (_, at) = prepared(outside), prepared(limit)
  apply = jax.jit(lambda slots: rule.apply(*slots, KEY))
  np.testing.assert_array_equal(apply(there), apply(at))
  np.testing.assert_allclose(rule.facts(there, False).choice, rule.facts(at, False).choice)
  assert float(jax.jit(jax.grad(lambda phi: jnp.sum(jnp.sin(rule.apply(W, phi, {}, KEY)))))(there.phi)['bits']) != 0


def test_a_learned_width_finds_the_cheapest_that_is_good_enough():
  """Error against cost: descent on the width alone ends where one bit more gains less than it costs."""
  rule, slots = prepared(8.)
  loss = lambda b: jnp.mean((rule.apply(W, slots.phi | {'bits': b}, {}, KEY) - W)**2) + .01 * b
  b, step = jnp.float32(8.), jax.jit(lambda b: b - 2. * jax.grad(loss)(b))
  for _ in range(400):
    b = step(b)
  whole = [float(np.mean((grid(slots, n) - np.asarray(W))**2)) + .01 * n for n in range(2, 9)]
  assert int(rule.facts(slots._replace(phi=slots.phi | {'bits': b}), True).bits) == 2 + int(np.argmin(whole))


def test_limits_and_start():
  rule = quantize.fractional_bits(smallest=3, largest=5)
  slots = rule.init(KEY, W)
  assert float(slots.phi['bits']) == 5 and slots.phi['scale'].shape == (3, 1, 1, 1, 8)
  assert rule.facts(slots, False).bits.tolist() == [4, 5] and rule.facts(slots, False).choice.tolist() == [0, 1]
  np.testing.assert_array_equal(rule.apply(*slots, KEY), fake(W, slots.phi['scale'][2], 5))


def test_zeros_give_zeros():
  rule = quantize.fractional_bits(initial=3.5)
  assert not rule.apply(*rule.init(KEY, jnp.zeros((4, 2))), KEY).any()


@pytest.mark.parametrize(('options', 'message'), [
    ({'smallest': 1}, 'fractional_bits: wants whole widths 2 <= smallest < largest <= 8, got 1 and 8: for a single'),
    ({'largest': 9}, 'fractional_bits: wants whole widths 2 <= smallest < largest <= 8, got 2 and 9'),
    ({'smallest': 4, 'largest': 4}, 'fractional_bits: wants whole widths .* got 4 and 4: for a single width use'),
    ({'initial': 8.5}, 'fractional_bits: initial must be from 2 to 8, got 8.5')])
def test_options_out_of_range(options, message):
  with pytest.raises(EffjaxError, match=message):
    quantize.fractional_bits(**options)


def test_not_finite_weights_are_refused():
  with pytest.raises(EffjaxError, match='fractional_bits: an array of shape .* has entries that are not finite'):
    quantize.fractional_bits().init(KEY, W / 0.)
