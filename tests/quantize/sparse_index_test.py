"""Relative indices against section 2 of Deep Compression."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from effjax import quantize
from effjax.errors import EffjaxError


def by_hand(symbols, bits):
  """One entry after another."""
  distances, stored, zeros = [], [], 0
  last = max([i for i, s in enumerate(symbols) if s], default=-1)
  for symbol in symbols[:last + 1]:
    if symbol or zeros == 2**bits - 1:
      distances.append(zeros), stored.append(symbol)
      zeros = 0
    else:
      zeros += 1
  return distances, stored


@settings(max_examples=80, deadline=None)
@given(hnp.arrays(np.uint8, st.integers(0, 200), elements=st.sampled_from([0] * 9 + [3])), st.integers(0, 8))
def test_against_a_loop_and_back(symbols, bits):
  distances, stored = quantize.sparse_index(symbols, bits)
  assert (distances.tolist(), stored.tolist()) == by_hand(symbols.tolist(), bits)
  assert (distances < 2**bits).all()
  np.testing.assert_array_equal(quantize.dense_symbols(distances, stored, len(symbols)), symbols)


def test_the_papers_example_has_one_filler():
  symbols = np.zeros(16, np.uint8)
  symbols[[1, 4, 15]] = 34, 9, 17
  distances, stored = quantize.sparse_index(symbols, 3)
  assert (distances + 1).tolist() == [2, 3, 8, 3] and stored.tolist() == [34, 9, 0, 17]  # places 1, 4, 12 and 15


def test_fillers_of_a_tenth_in_five_bits():
  symbols = (np.random.default_rng(0).random(10**6) < .1).astype(np.uint8)
  _, stored = quantize.sparse_index(symbols, 5)
  q = .9**32
  np.testing.assert_allclose((stored == 0).sum() / (stored != 0).sum(), q / (1 - q), rtol=.05)


def test_errors():
  with pytest.raises(EffjaxError, match='sparse_index: bits must be a whole number from 0 to 8, got 9'):
    quantize.sparse_index(np.zeros(3, int), 9)
  with pytest.raises(EffjaxError, match='dense_symbols: the distances lead to place 5 of 4: give the size of the array'):
    quantize.dense_symbols(np.array([5], np.uint8), np.array([1]), 4)
