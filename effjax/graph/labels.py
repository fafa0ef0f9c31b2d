"""Which entries of which axes live and die together: a union-find over labels, one label per entry of an axis.

Label 0 is PINNED: an entry that can never go. All operations work on whole axes (integer arrays).
"""
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

PINNED = 0


class Edge(NamedTuple):
  """Why labels were joined, entry by entry: at the equation `at`, for the reason `why`."""
  low: np.ndarray
  high: np.ndarray
  at: Any
  why: str


class Labels:
  """A growing union-find. The root of a set is its smallest label, so whatever meets PINNED is pinned.

  Every join that changed something is kept in `edges`: together they are a spanning forest, so that there is one way
  from a label to any other of its set.
  """

  def __init__(self):
    self.room = np.arange(1024)  # parents of labels, and of those to come
    self.size = 1
    self.edges: list[Edge] = []
    self.repeats: set[int] = set()  # labels of axes that a value is repeated along, as long as they meet no other
    self.at: Any = None  # the equation that joins from now on
    self.contracted: list[np.ndarray] = []  # labels of parameter axes that a convolution or product sums over
    self.mixed: list[np.ndarray] = []  # labels summed over with no parameter in the sum
    self.made_of: list[tuple[np.ndarray, np.ndarray]] = []  # an axis of a computed weight, and one that it is made of
    self.guards: set[int] = set()  # labels of single entries that multiply a whole tensor

  def fresh(self, n: int) -> np.ndarray:
    """n new labels."""
    first, self.size = self.size, self.size + n
    if self.size > len(self.room):
      self.room = np.concatenate([self.room, np.arange(len(self.room), 2 * self.size)])
    return np.arange(first, self.size)

  def find(self, labels: np.ndarray) -> np.ndarray:
    """The root of each label."""
    roots = self.room[labels]
    while not np.array_equal(roots, above := self.room[roots]):
      roots = above
    self.room[labels] = roots
    return roots

  def summed(self) -> np.ndarray:
    """For each label whether a sum with a parameter runs over it, also where the parameter was computed first."""
    found = np.zeros(self.size, bool)
    for axis in self.contracted:
      found[axis] = True
    for made, source in reversed(self.made_of):
      found[source] |= found[made]
    return found

  def roots(self) -> np.ndarray:
    """The root of every label."""
    return self.find(np.arange(self.size))

  def join(self, a: np.ndarray, b: np.ndarray, why: str = '') -> None:
    """Entry i of `a` and entry i of `b` live and die together (numpy broadcasting)."""
    a, b = np.broadcast_arrays(a, b)
    a, b = a.ravel(), b.ravel()
    while True:
      ra, rb = self.find(a), self.find(b)
      low, high = np.minimum(ra, rb), np.maximum(ra, rb)
      differ = np.flatnonzero(low != high)
      if not differ.size:
        return
      high, differ = _first_of_each(high, differ)  # one new parent for each root: the rest in the next round
      self.room[high] = low[differ]
      self.edges.append(Edge(a[differ], b[differ], self.at, why))
      if self.repeats:
        self.repeats.difference_update(a[differ].tolist(), b[differ].tolist())

  def join_all(self, labels: np.ndarray, why: str = '') -> None:
    """All of these live and die together."""
    if labels.size:
      self.join(labels, labels.ravel()[:1], why)

  def pin(self, axes: Iterable[np.ndarray], why: str) -> None:
    """These entries stay, for the reason `why`."""
    for labels in axes:
      self.join(labels, np.full(1, PINNED), why)

  def pinned(self, labels: np.ndarray) -> bool:
    """Whether every entry is pinned."""
    return not self.find(labels).any()

  def merge(self, parts: list[np.ndarray]) -> np.ndarray:
    """Labels of the axis that flattens several axes: at most one of them may have entries that can go."""
    free = [p for p in parts if not self.pinned(p)]
    if len(free) > 1:  # copies stay copies
      self.pin((p for p in free if self.repeats.issuperset(p.tolist())), 'its entries are repeated')
      free = [p for p in free if not self.pinned(p)]
    if len(free) > 1:  # an entry would survive only with all its factors: let them all be one
      self.join_all(np.concatenate(free), 'two axes are flattened into one')
    grid = np.zeros([len(p) for p in parts], np.int64)
    for axis, p in enumerate(parts):
      if not self.pinned(p):
        grid = grid + p.reshape([-1 if a == axis else 1 for a in range(len(parts))])
        break
    return grid.ravel()

  def split(self, labels: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """Labels of the axes that one axis is reshaped to: one of them carries the choice, the others are pinned.

    The one along which alone the labels vary already; else the last, the same entries in every block.
    """
    grid, roots = labels.reshape(sizes), self.find(labels).reshape(sizes)
    line = lambda axis: tuple(slice(None) if a == axis else slice(0, 1) for a in range(len(sizes)))
    for axis in reversed(range(len(sizes))):
      if np.array_equal(np.broadcast_to(roots[line(axis)], roots.shape), roots):
        break
    else:
      axis = len(sizes) - 1
      self.join(grid, grid[line(axis)], 'an axis is split: the same entries of every block')
    return [grid[line(axis)].ravel() if a == axis else np.zeros(n, np.int64) for a, n in enumerate(sizes)]


def _first_of_each(high, differ):
  """The roots `high[differ]` without repetition, and where each stands first."""
  roots, first = np.unique(high[differ], return_index=True)
  return roots, differ[first]
