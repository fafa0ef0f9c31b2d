"""Fixed point against section 3 of the paper, and the paper's claim on handwritten digits."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import data, quantize
from effjax.errors import EffjaxError

KEY = jax.random.key(4)
W = jax.random.normal(KEY, (64, 32))
round_at = quantize.to_fixed_point


@pytest.mark.parametrize(('integer', 'fraction'), [(1, 3), (2, 6), (4, 12), (2, 0), (12, 12)])
def test_to_nearest(integer, fraction):
  x = np.float64(3 * W)
  e = 2.**-fraction
  expected = np.clip(np.rint(x / e) * e, -2.**(integer - 1), 2.**(integer - 1) - e)
  np.testing.assert_array_equal(round_at(3 * W, integer, fraction), expected)
  on_grid = jnp.asarray(expected, jnp.float32)
  np.testing.assert_array_equal(round_at(on_grid, integer, fraction, KEY), on_grid)  # whatever is drawn


@pytest.mark.parametrize('x', [.3, -.3, 1.99, 0., -1.97])
def test_mean_and_variance_at_random(x):
  e, n = 2.**-3, 10**6
  y = np.float64(round_at(jnp.full(n, x), 3, 3, KEY))
  f = x / e - np.floor(x / e)
  variance = f * (1 - f) * e**2
  assert set(np.unique(y)) <= {np.floor(x / e) * e, np.floor(x / e) * e + e}
  assert abs(y.mean() - x) <= 5 * np.sqrt(variance / n) + 1e-7
  np.testing.assert_allclose(y.var(), variance, rtol=.02, atol=1e-9)


def test_saturation_is_not_symmetric():
  for key in (None, KEY):
    np.testing.assert_array_equal(round_at(jnp.array([9., -9., 2., -2.]), 2, 4, key), [1.9375, -2., 1.9375, -2.])


def test_the_mean_is_kept_among_large_codes():
  x = 2.**20 + .25  # so large that x + u has few bits left for u
  y = np.float64(round_at(jnp.full(10**5, x), 22, 2, KEY))
  assert (y == x).all()
  y = np.float64(round_at(jnp.full(10**5, x), 22, 0, KEY))
  assert abs(y.mean() - x) < 5 * np.sqrt(.25 * .75 / 10**5)


def test_gradient_of_the_rule_is_1_inside():
  rule = quantize.fixed_point(1, 3)
  pull = jax.vjp(lambda w: rule.apply(w, {}, {}, None), W)[1]
  inside = (W >= -1) & (W <= .875)
  np.testing.assert_array_equal(pull(jnp.cos(W))[0], jnp.where(inside, jnp.cos(W), 0.))


def test_the_rule_draws_only_while_training():
  nearest, drawing = quantize.fixed_point(4, 3), quantize.fixed_point(4, 3, stochastic=True)
  np.testing.assert_array_equal(drawing.apply(W, {}, {}, None), nearest.apply(W, {}, {}, KEY))
  mean = np.mean([drawing.apply(W, {}, {}, key) for key in jax.random.split(KEY, 500)], 0)
  np.testing.assert_allclose(mean, W, atol=5 * .5 * 2.**-3 / np.sqrt(500))


@pytest.mark.parametrize('key', [None, KEY], ids=['nearest', 'stochastic'])
def test_updates_lead_to_fixed_point_bitwise_and_draw_anew(key):
  tx = optax.chain(optax.sgd(.1), quantize.fixed_point_weights(2, 6, key))
  weights = {'a': round_at(W, 2, 6), 'b': round_at(W, 2, 6)}
  state = tx.init(weights)
  step = jax.jit(lambda w, state: tx.update(jax.tree.map(jnp.cos, w), state, w))
  apart = []
  for _ in range(4):
    updates, state = step(weights, state)
    weights = optax.apply_updates(weights, updates)
    for w in weights.values():
      np.testing.assert_array_equal(round_at(w, 2, 6), w)
    apart.append(float(jnp.mean(weights['a'] != weights['b'])))
  assert (apart[-1] > 0) == (key is not None)
  assert step._cache_size() == 1


def test_small_updates_die_at_nearest_and_live_on_average():
  w, update = jnp.zeros(4096), jnp.full(4096, 2.**-9)
  move = lambda tx: optax.apply_updates(w, tx.update(update, tx.init(w), w)[0])
  np.testing.assert_array_equal(move(quantize.fixed_point_weights(2, 6)), 0.)
  mean = float(move(quantize.fixed_point_weights(2, 6, KEY)).mean())
  assert abs(mean - 2.**-9) < 5 * np.sqrt(.125 * .875 / 4096) * 2.**-6


def trained(key, fraction_bits):
  """Test accuracy of a 64-32-10 network on the digits after SGD in <4, FL>, or in float."""
  digits = data.load('digits')
  part = lambda source: source.fetch(np.arange(source.size))
  train, test = part(digits.train), part(digits.test)
  flat = lambda batch: jnp.asarray(batch['image'].reshape(-1, 64), jnp.float32) * (1 / 255)
  x, y = flat(train), jnp.asarray(train['label'])
  draw = lambda i, m, n: jax.random.normal(jax.random.fold_in(KEY, i), (m, n)) * m**-.5
  weights = {'a': draw(0, 64, 32), 'b': draw(1, 32, 10)}
  run = lambda w, x: jax.nn.relu(x @ w['a']) @ w['b']
  tx = optax.sgd(.03)  # at .1 and 6 bits many updates are still above e / 2: nearest then reaches .91
  if fraction_bits:
    tx = optax.chain(tx, quantize.fixed_point_weights(4, fraction_bits, key))
    weights = jax.tree.map(lambda w: round_at(w, 4, fraction_bits), weights)

  def step(carry, rows):
    w, state = carry
    loss = lambda w: optax.softmax_cross_entropy_with_integer_labels(run(w, x[rows]), y[rows]).mean()
    updates, state = tx.update(jax.grad(loss)(w), state, w)
    return (optax.apply_updates(w, updates), state), None

  rows = jax.random.randint(jax.random.fold_in(KEY, 2), (4000, 32), 0, len(x))
  (weights, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, rows))((weights, tx.init(weights)))
  return float(jnp.mean(run(weights, flat(test)).argmax(-1) == test['label']))


def test_the_papers_claim_nearest_rounding_ends_training_where_drawn_rounding_does_not():
  exact, drawn, nearest = trained(None, None), trained(KEY, 6), trained(None, 6)
  assert exact > .93
  assert drawn > exact - .03
  assert nearest < exact - .1
  assert trained(None, 12) > exact - .03  # with bits enough, nearest will do


@pytest.mark.parametrize('bits', [(0, 4), (1, 0), (12, 13), (3, -1)])
def test_wrong_bits(bits):
  text = f'wanted integer_bits from 1 and fraction_bits from 0 on, together 2 to 24, got {bits[0]} and {bits[1]}'
  for name in ('fixed_point', 'fixed_point_weights'):
    with pytest.raises(EffjaxError, match=f'{name}: {text}'):
      getattr(quantize, name)(*bits)
  with pytest.raises(EffjaxError, match=f'to_fixed_point: {text}'):
    round_at(W, *bits)


def test_other_errors():
  with pytest.raises(EffjaxError, match='fixed_point_weights: the update needs the weights, got none: call tx.update'):
    quantize.fixed_point_weights(2, 6).update(W, optax.EmptyState())
  with pytest.raises(EffjaxError, match=r'fixed_point: an array of shape \(64, 32\) has entries that are not finite'):
    quantize.fixed_point(2, 6).init(KEY, W.at[0].set(jnp.nan))
