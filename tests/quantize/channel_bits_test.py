"""Channel bits against a float64 mixture of each channel, its hard choices, and what costs see of it."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from effjax import cost, quantize
from effjax.errors import EffjaxError
from effjax.export.kernels import codes_of
from effjax.graph import profile
from effjax.quantize.lsq import quantize as fake

KEY = jax.random.key(2)
W = jax.random.normal(KEY, (3, 3, 4, 8))
BITS = (0, 2, 4, 8)
LOGITS = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


def prepared(logits=LOGITS, bits=BITS, **options):
  rule = quantize.channel_bits(bits, **options)
  slots = rule.init(KEY, W)
  return rule, slots._replace(phi=slots.phi | {'logits': jnp.asarray(logits, jnp.float32)})


def grids(slots):
  return np.stack([np.zeros(W.shape), *(np.float64(fake(W, s, b)) for s, b in zip(slots.phi['scale'], BITS[1:]))])


def test_the_mixture():
  rule, slots = prepared(temperature=.5)
  p = special.softmax(np.float64(LOGITS) / .5, 1)
  np.testing.assert_allclose(rule.apply(*slots, KEY), np.einsum('cb,bhwic->hwic', p, grids(slots)), rtol=1e-4, atol=1e-6)
  fact = rule.facts(slots, False)
  np.testing.assert_array_equal(fact.bits, BITS)
  np.testing.assert_allclose(fact.choice, p.mean(0), rtol=1e-5)


def test_the_gradient_of_the_logits():
  """Of channel c: p_i (<t, w_i> - <t, y>) / T."""
  rule, slots = prepared(temperature=.5)
  t = jax.random.normal(jax.random.key(3), W.shape)
  grad = jax.grad(lambda phi: jnp.sum(t * rule.apply(W, phi, slots.state, KEY)))(slots.phi)
  p = special.softmax(np.float64(LOGITS) / .5, 1)
  inner = np.einsum('hwic,bhwic->cb', np.float64(t), grids(slots))
  expected = p * (inner - (p * inner).sum(1, keepdims=True)) / .5
  np.testing.assert_allclose(grad['logits'], expected, rtol=2e-3, atol=1e-4)


def test_hard_choices_are_exact_and_fit_the_widest():
  best = np.array([0, 1, 2, 2, 0, 1, 2, 0])
  rule, slots = prepared(np.eye(4)[best])
  y, fact = rule.apply(*slots, None), rule.facts(slots, True)
  np.testing.assert_array_equal(y, np.take_along_axis(grids(slots), best[None, None, None, None], 0)[0].astype(np.float32))
  assert float(fact.bits) == 4
  codes, bits = codes_of('finalize', 'w', y, fact)
  assert bits == 4
  largest = np.abs(codes).max((0, 1, 2))
  assert (largest[best == 0] == 0).all() and (largest[best == 1] == 1).all() and (largest[best == 2] <= 7).all()


def test_no_bits_anywhere_is_an_array_of_zeros():
  rule, slots = prepared(np.eye(4)[np.zeros(8, int)])
  assert not rule.apply(*slots, None).any()
  fact = rule.facts(slots, True)
  assert float(fact.bits) == 0 and (fact.scale > 0).all()
  assert not codes_of('finalize', 'w', rule.apply(*slots, None), fact)[0].any()


def test_costs_see_the_expected_width():
  rule, slots = prepared()
  found = profile(lambda p, x: x @ p['w'].reshape(36, 8), {'w': W}, jnp.ones((1, 36)))
  p = special.softmax(np.float64(LOGITS), 1)
  facts = {'w': rule.facts(slots, False)}
  assert float(cost.bitops(found, facts)) == pytest.approx(36 * 8 * (p @ BITS).sum(), rel=1e-5)
  stored = p[:, :3].sum() * 4 + p[:, 3].sum() * 8  # int4 holds up to 4 bits; a channel of zeros is stored as well
  assert float(cost.flash_bytes(found, facts)) == pytest.approx(36 * stored / 8 + 8 * 8, rel=1e-5)
  grad = jax.grad(lambda a: cost.bitops(found, {'w': rule.facts(
      slots._replace(phi=slots.phi | {'logits': a}), False)}))(slots.phi['logits'])
  assert (grad[:, 0] < 0).all() and (grad[:, 3] > 0).all()


def test_nothing_is_favoured_at_the_start_and_the_order_of_widths_does_not_matter():
  rule = quantize.channel_bits((8, 0, 4))
  slots = rule.init(KEY, W)
  np.testing.assert_array_equal(slots.phi['logits'], np.zeros((8, 3)))
  assert float(rule.facts(slots, True).bits) == 8 and slots.phi['scale'].shape == (2, 1, 1, 1, 8)
  np.testing.assert_array_equal(rule.apply(*slots, None), fake(W, slots.phi['scale'][0], 8))


def test_another_axis_and_no_zero():
  rule = quantize.channel_bits((2, 4), channel_axis=0)
  slots = rule.init(KEY, W)
  slots = slots._replace(phi=slots.phi | {'logits': jnp.array([[1., 0.], [0., 1.], [1., 0.]])})
  y = rule.apply(*slots, None)
  np.testing.assert_array_equal(y[1], fake(W, slots.phi['scale'][1], 4)[1])
  np.testing.assert_array_equal(y[2], fake(W, slots.phi['scale'][0], 2)[2])


def test_a_schedule_is_followed_by_the_step():
  rule, slots = prepared(temperature=lambda step: 1. / (1. + step.astype(jnp.float32)))
  for i in range(3):
    expected = special.softmax(np.float64(LOGITS) * (1 + i), 1).mean(0)
    np.testing.assert_allclose(rule.facts(slots, False).choice, expected, rtol=1e-5)
    slots = slots._replace(state=rule.update(slots, W))
  assert slots.state['step'].dtype == jnp.int32


@pytest.mark.parametrize('bits', [(8,), (4, 4), (4, 9), (1, 2), ()])
def test_wrong_widths_are_refused(bits):
  with pytest.raises(EffjaxError, match='channel_bits: wants two or more different widths of 0 and 2 to 8, got .*lsq'):
    quantize.channel_bits(bits)


@pytest.mark.parametrize(('w', 'message'), [
    (jnp.ones(3), r'lsq: per_channel wants at least 2 axes, got shape \(3,\)'),
    (W / 0., 'channel_bits: an array of shape .* has entries that are not finite')])
def test_wrong_arrays_are_refused(w, message):
  with pytest.raises(EffjaxError, match=message):
    quantize.channel_bits().init(KEY, w)
