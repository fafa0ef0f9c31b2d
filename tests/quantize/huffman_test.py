"""Huffman codes: shorter than any other prefix code would be by less than a bit, and reversible."""
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.quantize.huffman import Code


def entropy(counts):
  p = counts[counts > 0] / counts.sum()
  return -(p * np.log2(p)).sum()


def average(code, counts):
  return (counts[code.symbols] * code.lengths).sum() / counts.sum()


def test_300_random_distributions_are_within_a_bit_of_their_entropy():
  for seed in range(300):
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(10000, rng.dirichlet(np.full(rng.integers(2, 200), rng.choice([.05, .3, 3.]))))
    code = quantize.huffman(counts)
    assert (2.**-code.lengths).sum() == 1
    assert entropy(counts) - 1e-9 <= average(code, counts) < entropy(counts) + 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=5))
def test_no_prefix_code_is_shorter(counts):
  counts = np.array(counts)
  lengths = itertools.product(range(1, len(counts)), repeat=len(counts))
  best = min((counts * each).sum() for each in lengths if sum(2.**-length for length in each) <= 1)
  assert average(quantize.huffman(counts), counts) * counts.sum() == pytest.approx(best)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, st.integers(1, 300)))
def test_what_is_encoded_is_decoded(symbols):
  code = quantize.huffman(np.bincount(symbols))
  content = quantize.huffman_encode(code, symbols)
  lengths = dict(zip(code.symbols.tolist(), code.lengths.tolist()))
  assert len(content) == -(-sum(lengths[s] for s in symbols.tolist()) // 8)
  np.testing.assert_array_equal(quantize.huffman_decode(code, content, len(symbols)), symbols)


def test_a_prefix_of_the_bits_tells_where_a_code_ends():
  code = quantize.huffman(np.array([40, 30, 9, 9, 5, 4, 2, 1]))
  words = []
  for i, length in enumerate(code.lengths):
    whole = quantize.huffman_encode(code, code.symbols[i:i + 1])
    words.append(''.join(f'{byte:08b}' for byte in whole)[:length])
  assert all(not b.startswith(a) for a, b in itertools.permutations(words, 2))
  assert words == sorted(words)  # canonical


def test_a_million_symbols_with_long_codes():
  rng = np.random.default_rng(0)
  symbols = np.concatenate([np.minimum(rng.geometric(.5, 10**6) - 1, 19), rng.integers(0, 5000, 10**4)])
  code = quantize.huffman(np.bincount(symbols))
  content = quantize.huffman_encode(code, symbols)
  assert code.lengths.max() > 16
  np.testing.assert_array_equal(quantize.huffman_decode(code, content, len(symbols)), symbols)


def test_codes_of_very_different_lengths():
  counts = np.array([1, 1, *(2**i for i in range(1, 40))])
  code = quantize.huffman(counts)
  assert code.lengths.max() == 40
  symbols = np.random.default_rng(1).integers(0, len(counts), 500)
  content = quantize.huffman_encode(code, symbols)
  np.testing.assert_array_equal(quantize.huffman_decode(code, content, 500), symbols)


def test_a_single_symbol_takes_no_bytes():
  code = quantize.huffman(np.array([0, 0, 7]))
  content = quantize.huffman_encode(code, np.array([2, 2, 2]))
  assert content == b'' and quantize.huffman_decode(code, content, 3).tolist() == [2, 2, 2]


def test_errors():
  code = quantize.huffman(np.array([5, 0, 1, 2]))
  with pytest.raises(EffjaxError, match=r'huffman: symbols \[1, 4\] have no code: count the symbols of all that is'):
    quantize.huffman_encode(code, np.array([0, 1, 4]))
  with pytest.raises(EffjaxError, match='huffman: the 1 bytes end after 8 of 9 symbols: they are not whole'):
    quantize.huffman_decode(code, b'\0', 9)
  for counts in ([0, 0], [-1, 2], []):
    with pytest.raises(EffjaxError, match='huffman: counts must be a vector of up to 65536 numbers from 0 on, not all'):
      quantize.huffman(np.array(counts, int))
  with pytest.raises(EffjaxError, match='huffman: a code of 60 bits, wanted at most 56: counts this far apart'):
    quantize.huffman_encode(Code(np.arange(61), np.array([*range(1, 61), 60])), np.arange(3))
