from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

from effjax.export.reference.int16_rounding import narrowed, rescaled, rounded, rounded_once
from effjax.export.reference.int64 import wide

RATIOS = [.5, .25, 1., 2.75e-3, 1 / 3, .999999, 1.75, 2. ** -9, 6.1e-5, 3e-9]
ACC = np.random.default_rng(0).integers(-2 ** 44, 2 ** 44, 400) >> np.random.default_rng(1).integers(0, 44, 400)


def within(ratio, top=2. ** 30):
  return np.where(np.abs(ACC * ratio) < top, ACC, 1)


@pytest.mark.parametrize('ratio', RATIOS)
def test_rounded_is_the_exact_product_ties_away_from_zero(ratio):
  acc = within(ratio)
  exact = [Fraction(int(a)) * Fraction(ratio) for a in acc]
  wanted = [int(abs(v) + Fraction(1, 2)) * (1 if v >= 0 else -1) for v in exact]
  small = np.abs(wanted) < 2 ** 15  # beyond, codes saturate and 47 bits of the ratio need not do
  np.testing.assert_array_equal(np.asarray(rounded(wide(acc), np.asarray(ratio)))[small], np.array(wanted)[small])


def test_products_of_doubles_next_to_a_tie_are_ties():
  assert 5 * .3 == 1.5 and Fraction(5) * Fraction(.3) < Fraction(3, 2)
  np.testing.assert_array_equal(rounded(wide(np.array([5, -5, 15])), np.asarray(.3)), [2, -2, 5])


@pytest.mark.parametrize('ratio', RATIOS)
def test_narrowed_uses_15_bits_of_the_multiplier(ratio):
  acc = within(ratio)
  exponent = int(np.frexp(ratio)[1])
  digits = min(int(np.floor(np.frexp(ratio)[0] * 2 ** 15 + .5)), 2 ** 15 - 1)
  wanted = [(int(a) * digits + (1 << (14 - exponent))) >> (15 - exponent) for a in acc]
  np.testing.assert_array_equal(narrowed(wide(acc), np.asarray(ratio)), wanted)


def test_rescaled_rounds_twice_and_rounded_once_once():
  x = np.random.default_rng(0).integers(-2 ** 15, 2 ** 15, 1000)
  for digits in (2 ** 30, 1475739525, 2 ** 31 - 1):
    ratio = digits / 2 ** 31  # has no more digits than the multiplier
    exact = (x << 15) * ratio
    assert np.abs(np.asarray(rescaled(jnp.asarray(x << 15, jnp.int32), ratio)) - exact).max() <= .75
    np.testing.assert_array_equal(rounded_once(jnp.asarray(x, jnp.int32), ratio * 2 ** 15), np.floor(exact + .5))
