"""Which entries of which axes live and die together: a union-find over labels, one label per entry of an axis.

Label 0 is PINNED: an entry that can never go. All operations work on whole axes (integer arrays).
"""
from collections.abc import Iterable

import numpy as np

PINNED = 0


class Labels:
  """A growing union-find. The root of a set is its smallest label, so whatever meets PINNED is pinned."""

  def __init__(self):
    self.parent = np.zeros(1, np.int64)
    self.contracted: list[np.ndarray] = []  # labels of parameter axes that a convolution or product sums over
    self.mixed: list[np.ndarray] = []  # labels summed over with no parameter in the sum
    self.guards: set[int] = set()  # labels of single entries that multiply a whole tensor

  def fresh(self, n: int) -> np.ndarray:
    """n new labels."""
    first = len(self.parent)
    self.parent = np.concatenate([self.parent, np.arange(first, first + n)])
    return np.arange(first, first + n)

  def find(self, labels: np.ndarray) -> np.ndarray:
    """The root of each label."""
    roots = self.parent[labels]
    while not np.array_equal(roots, above := self.parent[roots]):
      roots = above
    self.parent[labels] = roots
    return roots

  def join(self, a: np.ndarray, b: np.ndarray) -> None:
    """Entry i of `a` and entry i of `b` live and die together (numpy broadcasting)."""
    a, b = np.broadcast_arrays(a, b)
    a, b = a.ravel(), b.ravel()
    while True:
      ra, rb = self.find(a), self.find(b)
      low, high = np.minimum(ra, rb), np.maximum(ra, rb)
      differ = low != high
      if not differ.any():
        return
      np.minimum.at(self.parent, high[differ], low[differ])

  def join_all(self, labels: np.ndarray) -> None:
    """All of these live and die together."""
    if labels.size:
      self.join(labels, labels.ravel()[:1])

  def pin(self, axes: Iterable[np.ndarray]) -> None:
    """These entries stay."""
    for labels in axes:
      self.join(labels, np.full(1, PINNED))

  def pinned(self, labels: np.ndarray) -> bool:
    """Whether every entry is pinned."""
    return not self.find(labels).any()

  def merge(self, parts: list[np.ndarray]) -> np.ndarray:
    """Labels of the axis that flattens several axes: at most one of them may have entries that can go."""
    free = [p for p in parts if not self.pinned(p)]
    if len(free) > 1:  # an entry would survive only with all its factors: let them all be one
      self.join_all(np.concatenate(free))
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
      self.join(grid, grid[line(axis)])
    return [grid[line(axis)].ravel() if a == axis else np.zeros(n, np.int64) for a, n in enumerate(sizes)]
