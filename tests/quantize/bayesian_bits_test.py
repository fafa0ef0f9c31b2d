"""Bayesian Bits against the residual recursion of equations 1 to 6 of the paper, written out in float64."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from effjax import cost, quantize, relax
from effjax.errors import EffjaxError
from effjax.export.kernels import codes_of
from effjax.graph import profile
from effjax.quantize.bayesian_bits import STRETCH

KEY = jax.random.key(2)
W = jax.random.normal(KEY, (3, 3, 4, 8))


def residuals(w, r):
  """x2 and the errors at 4 and 8 bits: each the rest, rounded to a grid that divides the one before."""
  w, s = np.float64(w), np.float64(r) * 2 / 3
  x = np.clip(w, -r * (1 - 1e-7), r * (1 - 1e-7))
  parts = [s * np.rint(x / s)]
  for b in (2, 4):
    s = s / (2**b + 1)
    parts.append(s * np.rint((x - sum(parts)) / s))
  return parts


def prepared(residual, channels=None, **options):
  rule = quantize.bayesian_bits(**options)
  slots = rule.init(KEY, W)
  phi = slots.phi | {'residual': jnp.asarray(residual, jnp.float32)}
  if channels is not None:
    phi['prune'] = jnp.asarray(channels, jnp.float32).reshape(slots.phi['prune'].shape)
  return rule, slots._replace(phi=phi)


@pytest.mark.parametrize('depth', range(3))
def test_grids_are_sums_of_nested_residuals(depth):
  rule, slots = prepared([9., 9.] if depth == 2 else [9., -9.] if depth else [-9., 9.])
  parts = residuals(W, np.asarray(slots.phi['range']))
  y, fact = rule.apply(*slots, None), rule.facts(slots, True)
  np.testing.assert_allclose(y, sum(parts[:depth + 1]), atol=2e-6)
  assert float(fact.bits) == (2, 4, 8)[depth]
  codes, bits = codes_of('test', 'w', y, fact)
  assert bits == (2, 4, 8)[depth] and np.abs(codes).max() == 2**(bits - 1) - 1


def test_the_mixture_with_drawn_gates():
  rule, slots = prepared([.3, .8], np.linspace(-1, 3, 8))
  parts = residuals(W, np.asarray(slots.phi['range']))
  draw = lambda i, name: np.float64(relax.hard_concrete(jax.random.fold_in(KEY, i), slots.phi[name], **STRETCH))
  (z4, z8), z2 = draw(0, 'residual'), draw(1, 'prune')
  expected = z2 * (parts[0] + z4 * (parts[1] + z8 * parts[2]))
  np.testing.assert_allclose(rule.apply(*slots, KEY), expected, rtol=1e-4, atol=3e-6)


def test_the_gradient_of_gates_is_that_of_the_product():
  rule, slots = prepared([.3, .8], np.linspace(-1, 3, 8))
  t = jax.random.normal(jax.random.key(5), W.shape)
  grad = jax.grad(lambda phi: jnp.sum(t * rule.apply(W, phi, {}, KEY)))(slots.phi)
  parts = residuals(W, np.asarray(slots.phi['range']))
  z = {name: jax.vjp(lambda a, i=i: relax.hard_concrete(jax.random.fold_in(KEY, i), a, **STRETCH), slots.phi[name])
       for i, name in enumerate(('residual', 'prune'))}
  z4, z8 = np.float64(z['residual'][0])
  inner, t64 = parts[0] + z4 * (parts[1] + z8 * parts[2]), np.float64(t)
  z2 = np.float64(z['prune'][0])
  by_z = {'prune': (t64 * inner).sum((0, 1, 2), keepdims=True),
          'residual': np.array([(t64 * z2 * (parts[1] + z8 * parts[2])).sum(), (t64 * z2 * z4 * parts[2]).sum()])}
  for name, expected in by_z.items():
    np.testing.assert_allclose(grad[name], z[name][1](jnp.asarray(expected, jnp.float32))[0], rtol=1e-3, atol=1e-4)


def test_soft_facts_are_the_probabilities_of_prefixes():
  channels = np.linspace(-1, 3, 8)
  rule, slots = prepared([.3, .8], channels)
  opened = lambda a: special.expit(np.asarray(a) - 2 / 3 * np.log(.1 / 1.1))
  q2, (q4, q8) = opened(channels).mean(), opened([.3, .8])
  fact = rule.facts(slots, False)
  np.testing.assert_array_equal(fact.bits, [0, 2, 4, 8])
  np.testing.assert_allclose(fact.choice, [1 - q2, q2 * (1 - q4), q2 * q4 * (1 - q8), q2 * q4 * q8], rtol=1e-5)
  np.testing.assert_allclose(fact.choice @ fact.bits, 2 * q2 + 2 * q2 * q4 + 4 * q2 * q4 * q8, rtol=1e-5)


def test_bit_operations_follow_the_gates():
  rule, slots = prepared([.3, .8])
  found = profile(lambda p, x: x @ p['w'].reshape(36, 8), {'w': W}, jnp.ones((1, 36)))
  expected = lambda phi: cost.bitops(found, {'w': rule.facts(slots._replace(phi=phi), False)})
  fact = rule.facts(slots, False)
  np.testing.assert_allclose(expected(slots.phi), 36 * 8 * 8 * float(fact.choice @ fact.bits), rtol=1e-5)
  grad = jax.grad(expected)(slots.phi)
  assert (grad['residual'] > 0).all() and (grad['prune'] > 0).all()


def test_closed_channels_are_zeros_and_all_closed_are_no_bits():
  closed = np.arange(8) % 2
  rule, slots = prepared([9., -9.], 9. - 18. * closed)
  y = np.asarray(rule.apply(*slots, None))
  assert (y[..., closed == 1] == 0).all() and (y[..., closed == 0] != 0).any()
  assert float(rule.facts(slots, True).bits) == 4
  rule, slots = prepared([9., 9.], np.full(8, -9.))
  assert not rule.apply(*slots, None).any() and float(rule.facts(slots, True).bits) == 0


def test_the_threshold_of_the_paper():
  at = np.log(.66 / .34) + 2 / 3 * np.log(.1 / 1.1)
  for a, open_ in ((at + 1e-3, True), (at - 1e-3, False)):
    rule, slots = prepared([a, a], prune=None)
    assert float(rule.facts(slots, True).bits) == (8 if open_ else 2)


@pytest.mark.parametrize(('prune', 'shape'), [('channel', (1, 1, 1, 8)), ('array', (1, 1, 1, 1)), (None, None)])
def test_where_gates_are(prune, shape):
  rule = quantize.bayesian_bits(prune=prune, largest_bits=4, per_channel=False)
  slots = rule.init(KEY, W)
  assert slots.phi['residual'].shape == (1,) and slots.phi['range'].shape == (1, 1, 1, 1)
  assert slots.phi['prune'].shape == shape if prune else 'prune' not in slots.phi
  assert rule.facts(slots, False).bits.tolist() == ([0, 2, 4] if prune else [2, 4])
  assert float(rule.facts(slots, False).choice.sum()) == pytest.approx(1)


def test_a_gate_learns_in_the_draws_that_do_not_saturate():
  rule = quantize.bayesian_bits(prune='array')
  slots = rule.init(KEY, W)
  keys = jax.random.split(KEY, 64)
  slope = lambda key: jax.grad(lambda phi: jnp.sum(jnp.sin(rule.apply(W, phi, {}, key))))(slots.phi)['prune']
  z = jax.vmap(lambda key: relax.hard_concrete(jax.random.fold_in(key, 1), slots.phi['prune'], **STRETCH))(keys)
  np.testing.assert_array_equal(jax.jit(jax.vmap(slope))(keys) != 0, (z > 0) & (z < 1))
  assert 16 < ((z > 0) & (z < 1)).sum() < 48


def test_zeros_stay_zeros():
  rule = quantize.bayesian_bits()
  slots = rule.init(KEY, jnp.zeros((4, 2)))
  y, pull = jax.vjp(lambda w, phi: rule.apply(w, phi, {}, KEY), slots.theta, slots.phi)
  assert not y.any() and all(np.isfinite(x).all() for x in jax.tree.leaves(pull(jnp.ones_like(y))))


@pytest.mark.parametrize(('options', 'w', 'message'), [
    ({'largest_bits': 16}, W, 'bayesian_bits: largest_bits must be 4 or 8, got 16: int8 kernels hold no more'),
    ({'prune': 'row'}, W, "bayesian_bits: prune must be 'channel', 'array' or None, got 'row'"),
    ({'initial_open': .5}, W, 'bayesian_bits: initial_open must be strictly between 0.66 and 1, got 0.5: gates start'),
    ({'channel_axis': 4}, W, r'bayesian_bits: channel_axis 4 of an array of shape \(3, 3, 4, 8\)'),
    ({}, W.at[0].set(jnp.inf), 'bayesian_bits: an array of shape .* has entries that are not finite')])
def test_errors(options, w, message):
  with pytest.raises(EffjaxError, match=message):
    quantize.bayesian_bits(**options).init(KEY, w)
