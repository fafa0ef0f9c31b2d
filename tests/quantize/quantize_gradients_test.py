"""Gradients in few bits: their mean is the gradient."""
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import quantize
from effjax.errors import EffjaxError

KEY = jax.random.key(3)
BOOKS = {'linear2': quantize.linear_levels(2), 'linear4': quantize.linear_levels(4), 'normal': quantize.normal_levels(),
         'dynamic': quantize.dynamic_levels()}


@pytest.mark.parametrize('name', BOOKS)
def test_unbiased_and_between_neighbours(name):
  tx = quantize.quantize_gradients(BOOKS[name], KEY, block=32)
  g = jax.random.normal(jax.random.fold_in(KEY, 1), (10, 10)).at[0, 0].set(-5.)  # -1 is no level of `dynamic`
  many = jax.lax.scan(lambda state, _: tx.update(g, state)[::-1], tx.init(g), None, 4000)[1]
  many, g = np.float64(many), np.float64(g)
  assert all(len(np.unique(many[:, i, j])) <= 2 for i in range(10) for j in range(10))
  error = np.abs(many.mean(0) - g) / np.maximum(many.std(0) / np.sqrt(4000), 1e-6)
  assert error.max() < 5  # standard deviations, of 100 means


def test_few_values_are_sent():
  tx = quantize.quantize_gradients(quantize.linear_levels(3), KEY, block=64)
  g = jax.random.normal(KEY, (64,))
  found = np.asarray(tx.update(g, tx.init(g))[0])
  codes = found / np.abs(g).max() * 3
  np.testing.assert_allclose(codes, np.rint(codes), atol=1e-5)
  assert np.abs(codes).max() < 3.1


def test_every_step_and_leaf_draws_anew_and_dtypes_stay():
  tx = quantize.quantize_gradients(quantize.linear_levels(2), KEY)
  g = {'a': jnp.linspace(-1., 1., 99), 'b': jnp.linspace(-1., 1., 99), 'c': jnp.ones(3, jnp.bfloat16), 'd': jnp.zeros(4)}
  first, state = jax.jit(tx.update)(g, tx.init(g))
  second, _ = jax.jit(tx.update)(g, state)
  assert (first['a'] != first['b']).any() and (first['a'] != second['a']).any()
  assert first['c'].dtype == jnp.bfloat16
  np.testing.assert_array_equal(first['d'], 0.)


def test_descent_goes_where_exact_gradients_lead():
  tx = optax.chain(quantize.quantize_gradients(quantize.linear_levels(4), KEY), optax.sgd(.1))
  w, wanted = jnp.zeros(64), jax.random.normal(KEY, (64,))
  state = tx.init(w)
  for _ in range(100):
    updates, state = tx.update(w - wanted, state)
    w = optax.apply_updates(w, updates)
  np.testing.assert_allclose(w, wanted, atol=1e-3)


def test_errors():
  with pytest.raises(EffjaxError, match='quantize_gradients: block must be a whole number from 1 on, got 0'):
    quantize.quantize_gradients(BOOKS['normal'], KEY, block=0)
  with pytest.raises(EffjaxError, match='quantize_gradients: levels must be on both sides of 0, got 0 to 1: gradients are'):
    quantize.quantize_gradients(quantize.dynamic_levels(signed=False), KEY)
