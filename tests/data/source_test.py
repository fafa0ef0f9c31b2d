import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effjax.data.source import arrays, joined, permutation, subset


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 200), seed=st.integers(0, 2**32), epoch=st.integers(0, 9))
def test_a_permutation_holds_every_index_once_and_is_repeatable(size, seed, epoch):
  order = permutation(size, seed, epoch)
  assert sorted(order.tolist()) == list(range(size))
  permutation.cache_clear()
  assert (permutation(size, seed, epoch) == order).all()


def test_permutations_are_these_on_every_machine():
  assert permutation(8, 0).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]
  assert permutation(8, 0, 1).tolist() != permutation(8, 1, 0).tolist()


def test_permutations_are_uniform():
  first = np.array([permutation(4, seed)[0] for seed in range(2_000)])
  assert np.abs(np.bincount(first) - 500).max() < 5 * np.sqrt(2_000 * 3 / 16)  # five standard deviations


def test_subset_of_subset():
  whole = arrays('all', np.zeros((5, 1, 1, 1), np.uint8), np.arange(5, dtype=np.int32), 5)
  part = subset(subset(whole, 'odd', np.array([1, 3])), 'last', np.array([1]))
  assert part.size == 1
  assert part.fetch(np.array([0]))['label'].tolist() == [3]


@pytest.mark.parametrize('seed', range(3))
def test_joined_is_the_concatenation(seed):
  """Any indices, repeated and in any order, of either part or both."""
  rng = np.random.default_rng(seed)
  make = lambda n: arrays('part', rng.integers(0, 256, (n, 2, 2, 1)).astype(np.uint8),
                           rng.integers(0, 9, n).astype(np.int32), 9)
  first, second = make(5), make(3)
  both = joined('both', first, second)
  all_images = np.concatenate([part.fetch(np.arange(part.size))['image'] for part in (first, second)])
  all_labels = np.concatenate([part.fetch(np.arange(part.size))['label'] for part in (first, second)])
  assert both.size == 8
  for chosen in (rng.integers(0, 8, 20), np.array([6, 7]), np.array([0, 4]), np.arange(8)[::-1]):
    got = both.fetch(chosen)
    np.testing.assert_array_equal(got['image'], all_images[chosen])
    np.testing.assert_array_equal(got['label'], all_labels[chosen])
