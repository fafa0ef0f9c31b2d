"""8-bit Adam: a quarter of the memory, nearly the same way down."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.quantize.quantize_state import Packed

KEY = jax.random.key(8)
PARAMS = {'w': jax.random.normal(KEY, (96, 64)), 'b': jnp.zeros(64)}


def nbytes(state):
  return sum(leaf.nbytes for leaf in jax.tree.leaves(state))


@pytest.fixture(autouse=True)
def optax_promotes():
  with jax.numpy_dtype_promotion('standard'):
    yield


def test_large_moments_take_a_quarter_and_small_ones_stay():
  state, exact = quantize.quantize_state(optax.adam(1e-3)).init(PARAMS), optax.adam(1e-3).init(PARAMS)
  assert nbytes(exact) == 2 * 4 * (96 * 64 + 64) + 4
  assert nbytes(state) == 2 * (96 * 64 + 4 * 96 * 64 / 256 + 4 * 64) + 4
  assert isinstance(state[0].mu['w'], Packed) and state[0].mu['w'].codes.shape == (96, 64)
  assert state[0].nu['b'].dtype == jnp.float32


def descent(tx, steps=300):
  """Losses of logistic regression by a two-layer network on a teacher's labels, in one trace."""
  x = jax.random.normal(jax.random.fold_in(KEY, 1), (512, 96))
  y = jnp.tanh(x @ jax.random.normal(jax.random.fold_in(KEY, 2), (96, 8)) * .3)
  params = {'a': jax.random.normal(KEY, (96, 64)) * .1, 'b': jnp.zeros(64), 'c': jnp.zeros((64, 8))}
  run = lambda p: jnp.mean((jax.nn.relu(x @ p['a'] + p['b'][None]) @ p['c'] - y)**2)

  def step(carry, _):
    params, state = carry
    loss, gradient = jax.value_and_grad(run)(params)
    updates, state = tx.update(gradient, state, params)
    return (optax.apply_updates(params, updates), state), loss

  (_, state), losses = jax.jit(lambda carry: jax.lax.scan(step, carry, None, steps))((params, tx.init(params)))
  return np.asarray(losses), state


@pytest.mark.parametrize('inner', [optax.adam(3e-3), optax.sgd(.5, momentum=.9)], ids=['adam', 'momentum'])
def test_descent_is_nearly_that_in_float(inner):
  exact, packed = descent(inner)[0], descent(quantize.quantize_state(inner, smallest=512))[0]
  assert exact[-1] < .1 * exact[0]
  np.testing.assert_allclose(packed[[20, 100, 299]], exact[[20, 100, 299]], rtol=.15)


def test_a_positive_second_moment_never_becomes_zero():
  tx = quantize.quantize_state(optax.adam(1.), smallest=1)
  gradient = jnp.array([1., 1e-6, 0., 1e-4])
  updates, state = tx.update(gradient, tx.init(gradient))
  codes = np.asarray(state[0].nu.codes)
  assert codes[2] == 0 and (codes[[0, 1, 3]] > 0).all()
  updates, _ = tx.update(gradient, state)
  assert float(jnp.abs(updates).max()) < 3


def test_what_is_kept_is_the_moment_to_a_few_percent():
  tx, exact = quantize.quantize_state(optax.adam(1.)), optax.adam(1.)
  gradient = jax.random.normal(KEY, (128, 64))
  state, wanted = tx.update(gradient, tx.init(gradient))[1][0], exact.update(gradient, exact.init(gradient))[1][0]
  for found, moment, signed in ((state.mu, wanted.mu, True), (state.nu, wanted.nu, False)):
    back = quantize.decode_blocks(*found, quantize.dynamic_levels(signed=signed))
    part = np.abs(moment).reshape(-1, 256)
    large = part > .1 * part.max(1, keepdims=True)  # in the decade of a block's largest, steps are equal
    error = np.abs(np.asarray(back - moment)).reshape(-1, 256) / part.max(1, keepdims=True)
    assert error[large].max() < .9 / (64 if signed else 128) / 2 * 1.001
    assert np.median(np.abs(back - moment) / np.abs(moment)) < .03


def test_errors():
  with pytest.raises(EffjaxError, match='quantize_state: no float32 array of the state has 4096 entries or more, nothing'):
    quantize.quantize_state(optax.adam(1.)).init(jnp.ones(8))
  with pytest.raises(EffjaxError, match='quantize_state: block must be a whole number from 1 on, got 0'):
    quantize.quantize_state(optax.adam(1.), block=0)
