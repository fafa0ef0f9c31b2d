import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effjax.graph.labels import PINNED, Labels

JOINS = st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=9), max_size=9)


@given(JOINS)
def test_joins_are_those_of_a_plain_union_find_and_edges_are_its_forest(joins):
  labels, root = Labels(), list(range(31))
  labels.fresh(30)
  for pairs in joins:
    a, b = np.array(pairs).T
    labels.join(a, b)
    for x, y in pairs:
      x, y = sorted((root[x], root[y]))
      root = [x if r == y else r for r in root]
  assert labels.roots().tolist() == root
  assert sum(len(edge.low) for edge in labels.edges) == 31 - len(set(root))


def test_labels_beyond_the_first_room():
  labels = Labels()
  first, second = labels.fresh(2000), labels.fresh(3000)
  labels.join(first, second[:2000])
  labels.pin([second[-1:]], 'given')
  assert labels.size == 5001 and (labels.find(second[:2000]) == first).all()
  assert labels.pinned(second[-1:]) and not labels.pinned(second)
  assert (labels.edges[-1].why, labels.find(second[-1:]).item()) == ('given', PINNED)


@pytest.mark.parametrize(('sizes', 'labels_of', 'expected'), [
    ([2, 3], [1, 2, 3, 1, 2, 3], [[0, 0], [1, 2, 3]]),  # the same entries in every block
    ([2, 3], [1, 1, 1, 2, 2, 2], [[1, 2], [0, 0, 0]]),  # whole blocks
    ([2, 2], [1, 2, 3, 4], [[0, 0], [1, 2]])])  # anything else is joined: the same entries in every block
def test_split(sizes, labels_of, expected):
  labels = Labels()
  labels.fresh(4)
  parts = labels.split(np.array(labels_of), sizes)
  assert [labels.find(part).tolist() for part in parts] == expected
