"""Codes by coordinate descent against all codes there are, and the paper's objective in float64."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError


def problem(seed, n=10, m=1):
  random = np.random.default_rng(seed)
  x = random.normal(size=(n, 3)) @ random.normal(size=(3, 30)) + .5 * random.normal(size=(n, 30))
  return np.float32(random.normal(size=(n, m))), np.float32(x)


def objective(w, x, b):
  """`min_a ||X^T w - a X^T b||^2` of one column."""
  s, t = np.float64(x).T @ np.float64(w), np.float64(x).T @ np.float64(b)
  return s @ s - (s @ t)**2 / max(t @ t, 1e-300)


def test_inputs_without_correlation_give_signs_and_mean_magnitude():
  w, _ = problem(0, m=4)
  found, scale = quantize.hashing(jnp.asarray(w), jnp.eye(10))
  np.testing.assert_allclose(scale[0], np.abs(w).mean(0), rtol=1e-6)
  np.testing.assert_array_equal(found, np.sign(w) * np.asarray(scale))


def test_between_the_best_of_all_codes_and_plain_signs():
  every = np.array(list(itertools.product([-1., 1.], repeat=10)))
  best, ours, more, signs = [], [], [], []
  fit = jax.jit(quantize.hashing, static_argnames=('starts',))
  for seed in range(20):
    w, x = problem(seed)
    gram = jnp.asarray(x @ x.T)
    b = lambda found: np.sign(np.asarray(found)[:, 0])
    ours.append(objective(w[:, 0], x, b(fit(jnp.asarray(w), gram)[0])))
    several = fit(jnp.asarray(w), gram, starts=8, key=jax.random.key(seed))
    more.append(objective(w[:, 0], x, b(several[0])))
    signs.append(objective(w[:, 0], x, np.sign(w[:, 0])))
    best.append(min(objective(w[:, 0], x, row) for row in every))
  best, ours, more, signs = map(np.array, (best, ours, more, signs))
  assert (ours >= best * (1 - 1e-4)).all() and (more >= best * (1 - 1e-4)).all()
  assert (ours <= signs * (1 + 1e-4)).all() and (more <= ours * (1 + 1e-4)).all()
  assert ours.mean() < signs.mean() and more.mean() < ours.mean()
  assert (np.isclose(more, best, rtol=1e-3)).sum() > (np.isclose(signs, best, rtol=1e-3)).sum()


@pytest.mark.parametrize('codes', [pytest.param((1,), marks=pytest.mark.slow), (0, 1),
                                   pytest.param((0, 1, 2), marks=pytest.mark.slow)])
def test_the_objective_never_rises_and_ends_where_no_single_code_helps(codes):
  w, x = problem(5, m=3)
  gram = jnp.asarray(x @ x.T)
  start = jnp.asarray(np.sign(w))
  run = lambda sweeps: quantize.coordinate_codes(gram @ w, gram, start, codes, sweeps=sweeps)
  errors = [[objective(w[:, i], x, np.asarray(run(sweeps)[0])[:, i]) for i in range(3)] for sweeps in (0, 1, 2, 3, 30)]
  assert (np.diff(errors, axis=0) <= 1e-4 * np.array(errors[:-1])).all()
  b, a = (np.float64(each) for each in run(30))
  assert (a >= 0).all() and set(np.unique(np.abs(b))) <= set(codes)
  both = sorted({sign * code for code in codes for sign in (-1, 1)})
  square = lambda b, i: ((np.float64(x).T @ (w[:, i] - a[i] * b))**2).sum()
  for i, j in itertools.product(range(3), range(10)):
    for code in both:
      other = b[:, i].copy()
      other[j] = code
      assert square(other, i) >= square(b[:, i], i) * (1 - 1e-4)


def test_a_scale_that_comes_out_negative_flips_the_signs():
  x = np.float32([[1., 1.], [1., .9]])
  w = np.float32([[1.], [-1.2]])  # whose signs give a small negative product
  found, scale = quantize.hashing(jnp.asarray(w), jnp.asarray(x @ x.T))
  assert float(scale[0, 0]) > 0
  signs = np.sign(np.asarray(found))[:, 0]
  assert objective(w[:, 0], x, signs) <= objective(w[:, 0], x, np.sign(w[:, 0])) * (1 + 1e-4)


def test_zeros_are_finite():
  for w, gram in ((jnp.zeros((3, 2)), jnp.eye(3)), (jnp.ones((3, 2)), jnp.zeros((3, 3)))):
    assert all(bool(jnp.isfinite(each).all()) for each in quantize.hashing(w, gram))


def test_errors():
  with pytest.raises(EffjaxError, match='hashing: starts must be at least 1, and more than 1 wants a key, got starts=2'):
    quantize.hashing(jnp.ones((2, 1)), jnp.eye(2), starts=2)
  with pytest.raises(EffjaxError, match=r'hashing: an array of shape \(1, 1\) has entries that are not finite'):
    quantize.hashing(jnp.full((1, 1), jnp.nan), jnp.eye(1))
