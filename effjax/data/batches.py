"""Batches as a function of the step: nothing to remember, so a resumed run sees what the killed one would have."""
from collections.abc import Callable, Iterator

import numpy as np

from effjax.data.source import Batch, Source, permutation
from effjax.errors import EffjaxError


def batches(source: Source, batch_size: int, seed: int) -> Callable[[int], Batch]:
  """`step -> {'image': uint8 [n, h, w, c], 'label': int32 [n], 'id': int32 [n]}`, shuffled anew in every epoch.

  Epoch `e = step // (size // batch_size)` walks through the order drawn from (seed, e); the remainder of a batch at
  its end is left out, each time another. `id` is the position in the batch, 0 to n - 1: a key folded with it is the
  same whichever device holds the example.

  Args:
    source: what to draw from.
    batch_size: examples in a batch, n.
    seed: of the orders.

  Raises:
    EffjaxError: the batch is larger than the source.

  >>> train = Source('t', 2, (1, 1, 1), 5, lambda i: {'image': np.zeros((len(i), 1, 1, 1), np.uint8), 'label': i})
  >>> sorted(np.concatenate([batches(train, 1, seed=0)(step)['label'] for step in range(5)]).tolist())
  [0, 1, 2, 3, 4]
  """
  _check(source, batch_size)
  steps = source.size // batch_size

  def batch(step):
    epoch, position = divmod(step, steps)
    order = permutation(source.size, seed, epoch)
    return _fetch(source, order[position * batch_size:(position + 1) * batch_size])

  return batch


def evaluation_batches(source: Source, batch_size: int) -> Iterator[Batch]:
  """Every example once, in order, in batches of one size: `mask` is False where the last one is padded.

  As `batches`, with 'mask': bool [n]. The padding repeats the last example; leave it out of every sum.

  >>> test = Source('t', 2, (1, 1, 1), 3, lambda i: {'image': np.zeros((len(i), 1, 1, 1), np.uint8), 'label': i})
  >>> [(batch['label'].tolist(), batch['mask'].tolist()) for batch in evaluation_batches(test, 2)]
  [([0, 1], [True, True]), ([2, 2], [True, False])]
  """
  for start in range(0, source.size, batch_size):
    indices = np.arange(start, start + batch_size)
    batch = _fetch(source, np.minimum(indices, source.size - 1))
    yield batch | {'mask': indices < source.size}


def _fetch(source, indices):
  return source.fetch(indices) | {'id': np.arange(len(indices), dtype=np.int32)}


def _check(source, batch_size):
  if not 1 <= batch_size <= source.size:
    raise EffjaxError(f'batch_size: wants 1 to {source.size}, the examples in {source.name!r}, got {batch_size}: '
                      'choose a smaller batch')
