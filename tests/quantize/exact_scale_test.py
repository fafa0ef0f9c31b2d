"""The sweep against all codes there are, and against the alternation of Leng et al. 2018, equations 15 to 17."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from effjax.errors import EffjaxError
from effjax.quantize.exact_scale import bits_of, by_group, check_codes, exact_scale, nearest_codes, ordered_sum

SETS = [(1,), (0, 1), (1, 2), (0, 1, 2), (0, 1, 2, 4), (1, 4, 127)]


def error(v, codes):
  """Of the scale that the sweep finds with the codes nearest to it, float64."""
  scale = exact_scale(jnp.asarray(v), codes)[:, None]
  return np.sum((v - np.float64(scale) * np.float64(nearest_codes(jnp.asarray(v), scale, codes)))**2, 1)


def brute(v, codes):
  """The least error over every choice of codes, float64."""
  q = np.array(list(itertools.product(codes, repeat=v.shape[1])), np.float64)
  squares = np.sum(q**2, 1)
  saved = (v.astype(np.float64) @ q.T)**2 / np.where(squares > 0, squares, 1)
  return np.sum(np.float64(v)**2, 1) - saved.max(1)


def alternation(v, codes):
  """The error that the paper's iteration ends with: codes of the scale, scale of the codes, from mean v."""
  v, c, a = np.float64(v), np.float64(codes), np.float64(v).mean()
  for _ in range(50):
    q = c[np.abs(v[:, None] / a - c).argmin(1)]
    a = v @ q / (q @ q) if q.any() else a
  return np.sum((v - a * q)**2)


@pytest.mark.parametrize(('codes', 'n'), [((1,), 8), ((0, 1), 8), ((1, 2), 8), ((0, 1, 2), 7), ((0, 1, 2, 4), 6),
                                          ((1, 4, 127), 6)])
def test_the_sweep_finds_what_all_codes_find(codes, n):
  v = np.abs(np.random.default_rng(0).normal(size=(200, n))).astype(np.float32)
  np.testing.assert_allclose(error(v, codes), brute(v, codes), rtol=2e-5, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, (1, 5), elements=st.sampled_from([0., .25, .5, .75, 1., 1.5, 3.])), st.sampled_from(SETS))
def test_ties_and_zeros(v, codes):
  np.testing.assert_allclose(error(v, codes), brute(v, codes), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize('codes', [(0, 1), (0, 1, 2), (0, 1, 2, 4)])
def test_never_worse_than_the_alternation_and_sometimes_better(codes):
  v = np.abs(np.random.default_rng(1).normal(size=(200, 6))).astype(np.float32)
  found, other = error(v, codes), np.array([alternation(row, codes) for row in v])
  assert (found <= other * (1 + 1e-5) + 1e-6).all()
  assert (found < other * .99).sum() >= 10


@pytest.mark.parametrize('codes', SETS)
@pytest.mark.parametrize('size', [1e-30, 1e-18, 1e18, 1e30])
def test_the_unit_does_not_matter(codes, size):
  v = jnp.abs(jax.random.normal(jax.random.key(2), (3, 40)))
  np.testing.assert_allclose(exact_scale(v * size, codes) / np.float32(size), exact_scale(v, codes), rtol=1e-5)


@pytest.mark.parametrize('codes', SETS)
def test_rows_of_zeros_and_of_one_weight(codes):
  np.testing.assert_array_equal(exact_scale(jnp.zeros((2, 5)), codes), 0.)
  v = jnp.array([[.7]])
  np.testing.assert_allclose(error(np.asarray(v), codes), 0., atol=1e-12)


@pytest.mark.parametrize('codes', [
    pytest.param(codes, marks=[pytest.mark.slow] * (codes not in ((0, 1), (0, 1, 2, 4)))) for codes in SETS])
def test_the_scale_is_the_same_bits_wherever_it_is_computed(codes):
  v = jnp.abs(jax.random.normal(jax.random.key(3), (4, 1000)))
  alone = jax.vmap(lambda row: exact_scale(row[None], codes)[0])(v)
  for other in (alone, jax.jit(lambda v: exact_scale(v, codes))(v)):
    assert np.asarray(other).tobytes() == np.asarray(exact_scale(v, codes)).tobytes()


@pytest.mark.parametrize('n', [1, 2, 7, 64, 1000])
def test_a_sum_by_halves_is_a_sum(n):
  x = np.random.default_rng(4).normal(size=(3, n)).astype(np.float32)
  np.testing.assert_allclose(ordered_sum(jnp.asarray(x)), x.astype(np.float64).sum(1), rtol=1e-5, atol=1e-5)


def test_groups_are_the_channels_or_the_array():
  w = jax.random.normal(jax.random.key(5), (3, 4, 5))
  each = by_group('x', lambda rows: rows.max(1), w, True, 1)
  np.testing.assert_array_equal(each, np.abs(w).max((0, 2), keepdims=True))
  np.testing.assert_array_equal(by_group('x', lambda rows: rows.max(1), w, False, 1), np.abs(w).max(keepdims=True))


@pytest.mark.parametrize(('codes', 'bits'), [((1,), 1), ((0, 1), 2), ((1, 3), 3), ((0, 1, 2), 3), ((0, 1, 2, 4), 4),
                                             ((1, 127), 8)])
def test_bits_hold_the_codes(codes, bits):
  assert bits_of(check_codes('x', codes)) == bits
  assert bits == 1 or 2**(bits - 2) <= codes[-1] < 2**(bits - 1)


@pytest.mark.parametrize('codes', [(), (0,), (2, 3), (1, 1), (0, 2, 1), (0, 128), (0, .5), (-1, 0, 1)])
def test_other_codes_are_refused(codes):
  with pytest.raises(EffjaxError, match=r'x: codes must be ascending whole numbers, the first 0 or 1, the last 1 to 127, '
                                        r'got \(.*\): \(1,\) is binary, \(0, 1\) ternary'):
    check_codes('x', codes)
