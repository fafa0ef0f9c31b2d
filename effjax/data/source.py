"""What a data set is: pictures and labels by index."""
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Batch = dict[str, np.ndarray]


class Source(NamedTuple):
  """One part of a data set, in memory or read on demand.

  name: for messages, e.g. `digits/train`.
  num_classes: labels are 0 to `num_classes - 1`.
  shape: (height, width, channels) of every image.
  size: number of examples.
  fetch(indices) -> {'image': uint8 [n, h, w, c], 'label': int32 [n]}, for indices in 0 to `size - 1`.
  """
  name: str
  num_classes: int
  shape: tuple[int, int, int]
  size: int
  fetch: Callable[[np.ndarray], Batch]


class Dataset(NamedTuple):
  """The parts of a data set; no example is in two of them.

  train: what weights are trained on. validation: what decisions are made on. test: what is reported, and nothing else.
  """
  train: Source
  validation: Source
  test: Source


def subset(source: Source, name: str, indices: np.ndarray) -> Source:
  """The examples of `source` at `indices`, in that order.

  >>> whole = arrays('all', np.zeros((3, 2, 2, 1), np.uint8), np.array([4, 5, 6], np.int32), 7)
  >>> part = subset(whole, 'some', np.array([2, 0]))
  >>> part.size, part.fetch(np.array([0]))['label']
  (2, array([6], dtype=int32))
  """
  return source._replace(name=name, size=len(indices), fetch=lambda chosen: source.fetch(indices[chosen]))


def joined(name: str, first: Source, second: Source) -> Source:
  """The examples of `first`, then those of `second`, as one source.

  >>> zeros = lambda labels: arrays('some', np.zeros((len(labels), 2, 2, 1), np.uint8), np.array(labels, np.int32), 7)
  >>> joined('all', zeros([4, 5]), zeros([6])).fetch(np.array([2, 0]))['label']
  array([6, 4], dtype=int32)
  """
  def fetch(chosen):
    order = np.argsort(chosen >= first.size, kind='stable')  # those of `first` in front
    split = int((chosen < first.size).sum())
    parts = first.fetch(chosen[order][:split]), second.fetch(chosen[order][split:] - first.size)
    back = np.argsort(order, kind='stable')
    return {key: np.concatenate([part[key] for part in parts])[back] for key in parts[0]}

  return first._replace(name=name, size=first.size + second.size, fetch=fetch)


def arrays(name: str, images: np.ndarray, labels: np.ndarray, num_classes: int) -> Source:
  """A source of what is in memory: uint8 images [n, h, w, c] and int32 labels [n]."""
  return Source(name, num_classes, images.shape[1:], len(images),
                lambda chosen: {'image': images[chosen], 'label': labels[chosen]})


@functools.lru_cache(maxsize=4)
def permutation(size: int, *seeds: int) -> np.ndarray:
  """A random order of 0 to `size - 1`, the same for the same seeds on every machine and NumPy version.

  The argsort of Philox's raw words: NumPy guarantees those, but not what `Generator.permutation` makes of them.

  >>> permutation(5, 0, 1)
  array([3, 4, 2, 1, 0])
  """
  words = np.random.Philox(np.random.SeedSequence(seeds)).random_raw(size)
  order = np.argsort(words, kind='stable')
  order.setflags(write=False)
  return order
