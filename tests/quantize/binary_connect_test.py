"""BinaryConnect against equations 1 to 3 and algorithm 1 of the paper."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import quantize
from effjax.errors import EffjaxError

KEY = jax.random.key(3)
W = jnp.array([[-1.5, -.4], [0., .3], [-0., 1.], [-1., 2.]])


@pytest.mark.parametrize('stochastic', [True, False])
@pytest.mark.parametrize('key', [None, KEY])
def test_the_gradient_by_w_is_that_by_the_binary_weight(stochastic, key):
  rule = quantize.binary_connect(stochastic=stochastic)
  y, pull = jax.vjp(lambda w: rule.apply(w, {}, {}, key), W)
  assert set(np.unique(y)) == {-1., 1.}
  np.testing.assert_array_equal(pull(jnp.cos(W))[0], jnp.cos(W))


@pytest.mark.parametrize('stochastic', [True, False])
def test_deployed_are_signs_with_one_at_zero(stochastic):
  rule = quantize.binary_connect(stochastic=stochastic)
  slots = rule.init(KEY, W)
  np.testing.assert_array_equal(rule.apply(*slots, None), [[-1., -1.], [1., 1.], [1., 1.], [-1., 1.]])
  assert [float(fact) for fact in rule.facts(slots, True)[:2]] == [1., 1.]
  assert stochastic or bool((rule.apply(*slots, None) == rule.apply(*slots, KEY)).all())


def test_drawn_weights_have_the_clipped_ones_as_their_mean():
  rule, n = quantize.binary_connect(stochastic=True), 20000
  draws = jax.vmap(lambda key: rule.apply(W, {}, {}, key))(jax.random.split(KEY, n))
  mean = np.clip(np.float64(W), -1, 1)
  assert (np.abs(draws.mean(0) - mean) <= 5 * np.sqrt((1 - mean**2) / n)).all()  # at both ends always the same one


@pytest.mark.parametrize('optimizer', [optax.sgd(.5), optax.adam(.5)], ids=['sgd', 'adam'])
@jax.numpy_dtype_promotion('standard')  # optax.adam raises a float to an integer power
def test_weights_stay_in_their_box_and_move_freely_inside(optimizer):
  tx, w = optax.chain(optimizer, quantize.clip_weights()), jnp.linspace(-1., 1., 101)
  state, plain = tx.init(w), optimizer.init(w)
  for i in range(5):
    g = jax.random.normal(jax.random.fold_in(KEY, i), w.shape)
    updates, state = jax.jit(tx.update)(g, state, w)
    free, plain = optimizer.update(g, plain, w)
    np.testing.assert_allclose(optax.apply_updates(w, updates), np.clip(np.float64(w) + np.float64(free), -1, 1), atol=1e-6)
    w = optax.apply_updates(w, updates)
    assert float(jnp.max(jnp.abs(w))) == 1.


def test_only_the_leaves_of_a_mask_are_clipped():
  params = {'w': jnp.array([.5]), 'b': jnp.array([.5])}
  tx = optax.chain(optax.sgd(1.), optax.masked(quantize.clip_weights(-2., .75), {'w': True, 'b': False}))
  updates, _ = tx.update(jax.tree.map(lambda x: -x, params), tx.init(params), params)
  assert {name: float(x[0]) for name, x in optax.apply_updates(params, updates).items()} == {'w': .75, 'b': 1.}


def test_without_the_clip_weights_drift():
  def last(tx):
    rule, w = quantize.binary_connect(), jnp.array([.1])
    state = tx.init(w)
    for _ in range(40):
      g = jax.grad(lambda w: jnp.sum(rule.apply(w, {}, {}, KEY) * -1.))(w)
      updates, state = tx.update(g, state, w)
      w = optax.apply_updates(w, updates)
    return float(w[0])

  assert last(optax.chain(optax.sgd(.1), quantize.clip_weights())) == 1. and last(optax.sgd(.1)) > 4.


def test_errors():
  with pytest.raises(EffjaxError, match=r'binary_connect: an array of shape \(1,\) has entries that are not finite'):
    quantize.binary_connect().init(KEY, jnp.array([jnp.nan]))
  with pytest.raises(EffjaxError, match='clip_weights: low must be below high, got 1.0 and 1.0'):
    quantize.clip_weights(1., 1.)
  tx = quantize.clip_weights()
  with pytest.raises(EffjaxError, match=r'clip_weights: wants the weights, got none: call tx.update\(gradients, state, params\)'):
    tx.update(W, tx.init(W))
