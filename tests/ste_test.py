"""Straight-through estimators: exact values, surrogate derivatives, in every mode of differentiation."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from effjax import ste

X = np.array([-3., -2., -1.5, -1., -0.5, -0.2, 0., 0.2, 0.5, 1., 1.5, 2., 2.5, 3.], np.float32)
LOW, HIGH = np.float32(-2.), np.float32(2.)
clip = lambda x: ste.clip(x, jnp.asarray(LOW, x.dtype), jnp.asarray(HIGH, x.dtype))

# function, its value and its surrogate derivative in float64
ESTIMATORS = {
    'round': (ste.round, np.rint, np.ones_like),
    'clip': (clip, lambda x: np.clip(x, LOW, HIGH), lambda x: (np.abs(x) <= 2.) * 1.),
    'sign': (ste.sign, lambda x: np.where(x >= 0, 1., -1.), lambda x: (np.abs(x) <= 1.) * 1.),
    'threshold': (ste.threshold, lambda x: (x > 0) * 1., np.ones_like),
    'scale_gradient': (lambda x: ste.scale_gradient(x, 0.25), lambda x: x, lambda x: np.full_like(x, 0.25))}
each = pytest.mark.parametrize(('f', 'value', 'slope'), ESTIMATORS.values(), ids=ESTIMATORS)


def elementwise(f):
  """Scalar estimators take arrays; clip's bounds are scalars, so map it over the entries."""
  return jax.vmap(f)


@each
def test_values(f, value, slope):
  np.testing.assert_array_equal(elementwise(f)(jnp.asarray(X)), value(X.astype(np.float64)).astype(np.float32))


@each
def test_forward_and_reverse_mode_give_the_surrogate(f, value, slope):
  x, t = jnp.asarray(X), jnp.arange(1., 1. + X.size)
  f = elementwise(f)
  y, dy = jax.jvp(f, (x,), (t,))
  np.testing.assert_array_equal(y, f(x))
  np.testing.assert_array_equal(dy, slope(X.astype(np.float64)) * np.asarray(t))
  np.testing.assert_array_equal(jax.vjp(f, x)[1](t)[0], slope(X.astype(np.float64)) * np.asarray(t))


@each
def test_second_derivatives(f, value, slope):
  """Surrogates are piecewise constant: (f^2)'' = 2 f'^2, forward over reverse and reverse over reverse."""
  g = jax.grad(lambda x: f(x)**2)
  for second in (jax.jacfwd(g), jax.grad(g)):
    np.testing.assert_allclose(jax.vmap(second)(jnp.asarray(X)), 2. * slope(X.astype(np.float64))**2)


@each
def test_under_jit_and_nested_vmap(f, value, slope):
  x = jnp.asarray(X).reshape(2, 7)
  np.testing.assert_array_equal(jax.jit(jax.vmap(jax.vmap(jax.grad(f))))(x), slope(X.astype(np.float64)).reshape(2, 7))


@each
def test_bfloat16_is_kept(f, value, slope):
  y, dy = jax.jvp(elementwise(f), (jnp.asarray(X, jnp.bfloat16),), (jnp.ones(X.shape, jnp.bfloat16),))
  assert y.dtype == dy.dtype == jnp.bfloat16


def test_clip_moves_its_bounds_where_it_saturates():
  x, low, high = jnp.array([-3., 0., 2., 3.]), jnp.full(4, -2.), jnp.full(4, 2.)
  _, dlow, dhigh = jax.grad(lambda *a: ste.clip(*a).sum(), argnums=(0, 1, 2))(x, low, high)
  np.testing.assert_array_equal(dlow, [1., 0., 0., 0.])
  np.testing.assert_array_equal(dhigh, [0., 0., 0., 1.])  # not at the tie x = high


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, 16, elements=st.floats(-1e6, 1e6, width=32)))
def test_round_is_exact_everywhere(x):
  np.testing.assert_array_equal(ste.round(jnp.asarray(x)), np.rint(x))
