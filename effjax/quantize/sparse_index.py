"""Sparse arrays as distances from one entry to the next, in few bits each: zeros fill the distances that are longer."""
import numpy as np
from jaxtyping import Integer, UInt8

from effjax.errors import EffjaxError


def sparse_index(symbols: Integer[np.ndarray, ' n'],
                 bits: int) -> tuple[UInt8[np.ndarray, ' m'], Integer[np.ndarray, ' m']]:
  """How many zeros come before each symbol that is stored, and these symbols.

  Stored are all that are not 0, and of every run of zeros each `2^bits`-th, a filler, so that less than `2^bits` lie
  before any. Zeros behind the last are not stored. With a density d and places at random, fillers are
  `q / (1 - q)` times the others, `q = (1 - d)^(2^bits)`.

  Args:
    bits: 0 to 8 of a distance; 0 stores all up to the last symbol that is not 0. The paper's are 8 for convolutions, 5
      for dense layers.

  Raises:
    EffjaxError: other bits.

  Source: Han, Mao, Dally, ICLR 2016, arXiv:1510.00149, section 2, survey [4].

  >>> [part.tolist() for part in sparse_index(np.array([0, 3, 0, 0, 0, 0, 0, 7, 0]), 2)]
  [[1, 3, 1], [3, 0, 7]]
  """
  if not (isinstance(bits, int) and 0 <= bits <= 8):
    raise EffjaxError(f'sparse_index: bits must be a whole number from 0 to 8, got {bits!r}')
  places = np.flatnonzero(symbols)
  zeros = np.diff(places, prepend=-1) - 1
  ends = np.cumsum((zeros >> bits) + 1)
  stored = np.zeros(int(ends[-1]) if len(ends) else 0, symbols.dtype)
  distances = np.full(len(stored), 2**bits - 1, np.uint8)
  stored[ends - 1], distances[ends - 1] = symbols[places], zeros & (2**bits - 1)
  return distances, stored


def dense_symbols(distances: UInt8[np.ndarray, ' m'], stored: Integer[np.ndarray, ' m'],
                  size: int) -> Integer[np.ndarray, ' n']:
  """The `size` symbols that `sparse_index` stored.

  Raises:
    EffjaxError: the distances lead beyond the last one.

  >>> dense_symbols(np.array([1, 3, 1], np.uint8), np.array([3, 0, 7]), 9).tolist()
  [0, 3, 0, 0, 0, 0, 0, 7, 0]
  """
  places = np.cumsum(distances.astype(np.int64) + 1) - 1
  if len(places) and places[-1] >= size:
    raise EffjaxError(f'dense_symbols: the distances lead to place {places[-1]} of {size}: give the size of the array '
                      'that was indexed')
  symbols = np.zeros(size, stored.dtype)
  symbols[places] = stored
  return symbols
