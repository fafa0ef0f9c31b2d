"""Mixed bits against a float64 mixture, its hard choice, and its expected cost."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.quantize.lsq import quantize as fake

KEY = jax.random.key(2)
W = jax.random.normal(KEY, (3, 3, 4, 8))
BITS = (2, 4, 8)


def prepared(logits, **options):
  rule = quantize.mixed_bits(BITS, **options)
  slots = rule.init(KEY, W)
  return rule, slots._replace(phi={**slots.phi, 'logits': jnp.asarray(logits, jnp.float32)})


def test_the_mixture():
  rule, slots = prepared([0.3, -0.2, 1.], temperature=0.5)
  p = special.softmax(np.array([0.3, -0.2, 1.]) / 0.5)
  grids = [np.float64(fake(W, scale, b)) for scale, b in zip(slots.phi['scale'], BITS)]
  np.testing.assert_allclose(rule.apply(*slots, KEY), sum(q * g for q, g in zip(p, grids)), rtol=1e-4, atol=1e-6)
  fact = rule.facts(slots, False)
  np.testing.assert_array_equal(fact.bits, BITS)
  np.testing.assert_allclose(fact.choice, p, rtol=1e-6)


def test_the_gradient_of_the_logits_is_that_of_the_mixture():
  """d/da_i sum_b p_b <t, w_b> = p_i (<t, w_i> - <t, y>) / T."""
  rule, slots = prepared([0.3, -0.2, 1.], temperature=0.5)
  t = jax.random.normal(jax.random.key(3), W.shape)
  grad = jax.grad(lambda phi: jnp.sum(t * rule.apply(W, phi, slots.state, KEY)))(slots.phi)
  p = special.softmax(np.array([0.3, -0.2, 1.]) / 0.5)
  inner = np.array([(np.float64(t) * np.float64(fake(W, s, b))).sum() for s, b in zip(slots.phi['scale'], BITS)])
  np.testing.assert_allclose(grad['logits'], p * (inner - p @ inner) / 0.5, rtol=2e-3, atol=1e-4)
  each = [jax.grad(lambda s, b=b: jnp.sum(t * fake(W, s, b)))(s) for s, b in zip(slots.phi['scale'], BITS)]
  np.testing.assert_allclose(grad['scale'], np.stack([q * np.asarray(g) for q, g in zip(p, each)]), 1e-4, 1e-5)


@pytest.mark.parametrize('best', range(3))
def test_the_hard_choice_is_one_grid_exactly(best):
  rule, slots = prepared(np.eye(3)[best])
  fact = rule.facts(slots, True)
  w = rule.apply(*slots, None)
  assert float(fact.bits) == BITS[best]
  np.testing.assert_array_equal(w, fake(W, slots.phi['scale'][best], BITS[best]))
  codes = np.asarray(quantize.codes(w, fact.scale))
  assert (codes.astype(np.float32) * np.asarray(fact.scale)).tobytes() == np.asarray(w).tobytes()


def test_nothing_is_favoured_at_the_start_and_ties_go_to_the_first():
  rule = quantize.mixed_bits(BITS)
  slots = rule.init(KEY, W)
  np.testing.assert_array_equal(slots.phi['logits'], 0.)
  assert float(rule.facts(slots, True).bits) == 2. and slots.phi['scale'].shape == (3, 1, 1, 1, 8)


def test_a_schedule_is_followed_by_the_step():
  rule, slots = prepared([0., 0., 1.], temperature=lambda step: 1. / (1. + step.astype(jnp.float32)))
  for i in range(3):
    p = special.softmax(np.array([0., 0., 1.]) * (1 + i))
    np.testing.assert_allclose(rule.facts(slots, False).choice, p, rtol=1e-6)
    slots = slots._replace(state=rule.update(slots, W))
  assert slots.state['step'].dtype == jnp.int32


@pytest.mark.parametrize('bits', [(8,), (4, 4), (4, 9), ()])
def test_wrong_widths_are_refused(bits):
  with pytest.raises(EffjaxError, match='mixed_bits: wants two or more different widths from 2 to 8, got .*lsq'):
    quantize.mixed_bits(bits)


def test_weights_that_are_not_finite_are_refused():
  with pytest.raises(EffjaxError, match=r'mixed_bits: an array of shape \(2, 2\) has entries that are not finite'):
    quantize.mixed_bits((4, 8)).init(jax.random.key(0), jnp.array([[1., jnp.nan], [0., 1.]]))
