"""Huffman coding of arrays of symbols: canonical codes, all in NumPy."""
import heapq
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from effjax.errors import EffjaxError

MOST = 2**16  # symbols
_LONGEST = 56  # bits of a code that a window of eight bytes holds wherever it begins


class Code(NamedTuple):
  """A canonical prefix code: codes of one length are consecutive numbers, longer ones continue them.

  symbols: those that have a code, in the order of their codes.
  lengths: bits of each code, ascending; a single symbol has the empty code.
  """
  symbols: Integer[np.ndarray, ' n']
  lengths: Integer[np.ndarray, ' n']


def huffman(counts: Integer[np.ndarray, ' k']) -> Code:
  """The prefix code of least total length for symbols 0 to k - 1 that appear `counts` times.

  Its average length L is `H <= L < H + 1` for the entropy H in bits; `sum 2^-length = 1`.

  Raises:
    EffjaxError: counts that are no counts, all zero, or of more than 65,536 symbols.

  Source: Huffman, "A Method for the Construction of Minimum-Redundancy Codes", Proceedings of the IRE 1952; canonical
  codes of Schwartz and Kallick 1964; in Deep Compression, survey [4].

  >>> code = huffman(np.array([5, 0, 1, 2]))
  >>> code.symbols.tolist(), code.lengths.tolist()
  ([0, 2, 3], [1, 2, 2])
  """
  counts = np.asarray(counts)
  if counts.ndim != 1 or not 0 < len(counts) <= MOST or (counts < 0).any() or not counts.any():
    raise EffjaxError(f'huffman: counts must be a vector of up to {MOST} numbers from 0 on, not all 0, '
                      f'got shape {counts.shape} with a sum of {counts.sum()}')
  present = np.flatnonzero(counts)
  lengths = np.array(_lengths(counts[present].tolist()))
  order = np.argsort(lengths, kind='stable')
  return Code(present[order], lengths[order])


def huffman_encode(code: Code, symbols: Integer[np.ndarray, ' n']) -> bytes:
  """The codes of the symbols one after another, the first bit of each byte first; zeros fill the last byte.

  Raises:
    EffjaxError: a symbol that has no code.

  >>> huffman_encode(huffman(np.array([5, 0, 1, 2])), np.array([0, 2, 0, 3])).hex()
  '4c'
  """
  _check_symbols(code, symbols)
  size = int(code.symbols.max()) + 1
  length_of, code_of = np.zeros(size, np.int64), np.zeros(size, np.uint64)
  length_of[code.symbols], code_of[code.symbols] = code.lengths, _canonical(code)
  lengths = length_of[symbols]
  after = np.repeat(np.cumsum(lengths), lengths) - np.arange(lengths.sum()) - 1  # bits of the same code yet to come
  bits = np.repeat(code_of[symbols], lengths) >> after.astype(np.uint64) & np.uint64(1)
  return np.packbits(bits.astype(np.uint8)).tobytes()


def huffman_decode(code: Code, content: bytes, count: int) -> Integer[np.ndarray, ' n']:
  """The `count` symbols that `content` begins with, in the dtype of `code.symbols`.

  The length of the code that would begin there is found for every bit at once, by bisection among the first codes of
  each length; only the walk from one beginning to the next is a loop.

  Raises:
    EffjaxError: the content ends before the last symbol.

  >>> huffman_decode(huffman(np.array([5, 0, 1, 2])), bytes.fromhex('4c'), 4).tolist()
  [0, 2, 0, 3]
  """
  if len(code.symbols) == 1:
    return np.full(count, code.symbols[0], code.symbols.dtype)
  windows = _windows(content)
  lengths, first = np.unique(code.lengths, return_index=True)
  aligned = _canonical(code)[first] << (64 - lengths).astype(np.uint64)  # the least window that begins with that length
  which = np.searchsorted(aligned, windows, side='right') - 1
  starts = _walk(lengths[which], count)
  which, windows = which[starts], windows[starts]
  beyond = (windows - aligned[which]) >> (64 - lengths[which]).astype(np.uint64)
  return code.symbols[first[which] + beyond.astype(np.int64)]


def _lengths(counts):
  """Depths of the leaves of Huffman's tree: an explicit heap, then parents before children."""
  heap = [(count, i) for i, count in enumerate(counts)]
  heapq.heapify(heap)
  parent, nodes = {}, len(counts)
  while len(heap) > 1:
    (a, left), (b, right) = heapq.heappop(heap), heapq.heappop(heap)
    parent[left] = parent[right] = nodes
    heapq.heappush(heap, (a + b, nodes))
    nodes += 1
  depth = {nodes - 1: 0}
  for node in range(nodes - 2, -1, -1):
    depth[node] = depth[parent[node]] + 1
  return [depth[i] for i in range(len(counts))]


def _canonical(code):
  """The number of each code: one more than its predecessor, with zeros behind it where it is longer."""
  if code.lengths[-1] > _LONGEST:
    raise EffjaxError(f'huffman: a code of {code.lengths[-1]} bits, wanted at most {_LONGEST}: counts this far apart '
                      'are no counts of an array')
  widths = (_LONGEST - code.lengths).astype(np.uint64)
  weights = np.uint64(1) << widths
  return (np.cumsum(weights) - weights) >> widths


def _windows(content):
  """At each bit the 56 bits or more from there on, at the top of 64; zeros behind the end."""
  data = np.frombuffer(content + bytes(8), np.uint8).astype(np.uint64)
  words = np.zeros(len(content), np.uint64)
  for i in range(8):
    words |= data[i:i + len(content)] << np.uint64(56 - 8 * i)
  return (words[:, None] << np.arange(8, dtype=np.uint64)).ravel()


def _walk(lengths, count):
  """Where each of `count` codes begins, given the length of one that would begin at each bit."""
  lengths, starts, at = lengths.tolist(), [], 0
  for _ in range(count):
    if at >= len(lengths):
      break
    starts.append(at)
    at += lengths[at]
  if len(starts) < count or at > len(lengths):
    raise EffjaxError(f'huffman: the {len(lengths) // 8} bytes end after {len(starts)} of {count} symbols: they are '
                      'not whole, or coded with another code')
  return np.array(starts, np.int64)


def _check_symbols(code, symbols):
  strange = np.setdiff1d(symbols, code.symbols)
  if strange.size:
    raise EffjaxError(f'huffman: symbols {strange[:5].tolist()} have no code: count the symbols of all that is encoded')
