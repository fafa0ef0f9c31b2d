import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from effjax.data.source import arrays, permutation, subset


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
