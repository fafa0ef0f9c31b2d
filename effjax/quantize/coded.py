"""One file of a whole tree: arrays of few values as code books, relative indices and Huffman codes, bitwise."""
import json
import os
import pathlib
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import tree
from effjax.errors import EffjaxError
from effjax.quantize.huffman import Code, huffman, huffman_decode, huffman_encode
from effjax.quantize.sparse_index import dense_symbols, sparse_index
from effjax.tree import Path, PyTree

MAGIC = b'effjax coded 1\n'
VALUES = 256  # distinct ones, up to which an array is coded


class Sizes(NamedTuple):
  """Bytes of one array, or of a file.

  codes: Huffman codes of which value each stored weight has. indices: those of the distances between them.
  code_books: the values. code_tables: what tells both Huffman codes. plain: arrays stored as they are.
  header: names, shapes and sizes of the parts; one for the file.
  """
  codes: int = 0
  indices: int = 0
  code_books: int = 0
  code_tables: int = 0
  plain: int = 0
  header: int = 0


def save_coded(path: str | os.PathLike, params: PyTree) -> dict[Path, Sizes]:
  """Writes the tree to a file, and says how large each array's parts are; under '' the header.

  An array of at most 256 distinct values, compared bitwise, is coded: its values other than 0 in a code book, the
  distances from one to the next in 0 to 8 bits, whichever comes out smallest, and both Huffman-coded. All others, and
  those that this would not make smaller, are stored as they are. The file appears whole.

  Source: Han, Mao, Dally, "Deep Compression", ICLR 2016, arXiv:1510.00149, survey [4].

  Differs from the paper: distances have as many bits as suit an array.

  >>> import tempfile
  >>> file = pathlib.Path(tempfile.mkdtemp()) / 'net.bin'
  >>> sizes = save_coded(file, {'w': jnp.array([[0., .5], [-.25, .5]] * 20)})
  >>> sizes['w'].code_books, load_coded(file)['w'][:2].tolist(), total_bytes(sizes) == file.stat().st_size
  (8, [[0.0, 0.5], [-0.25, 0.5]], True)
  """
  packed = {name: _pack(np.asarray(leaf)) for name, leaf in tree.leaves(params).items()}
  body = b''.join(part for parts, _ in packed.values() for part in parts)
  header = json.dumps({'crc32': zlib.crc32(body), 'arrays': {name: about for name, (_, about) in packed.items()}})
  header = zlib.compress(header.encode())
  content = MAGIC + len(header).to_bytes(4, 'little') + header + body
  path = pathlib.Path(path)
  beside = path.with_name(f'{path.name}.{os.getpid()}.part')
  beside.write_bytes(content)
  beside.replace(path)
  sizes = {name: Sizes(*about['sizes']) for name, (_, about) in packed.items()}
  return sizes | {'': Sizes(header=len(content) - len(body))}


def load_coded(path: str | os.PathLike, like: PyTree | None = None) -> PyTree:
  """The arrays of a file, bitwise: by path, or in the structure of `like`.

  Args:
    path: of a file that `save_coded` wrote.
    like: a tree with the same leaves; its values are not read.

  Raises:
    EffjaxError: not such a file, a damaged one, or one of other leaves than `like`.
  """
  content = pathlib.Path(path).read_bytes()
  start = len(MAGIC) + 4
  if not content.startswith(MAGIC) or len(content) < start:
    raise EffjaxError(f'load_coded: {path} does not begin as a file of save_coded does: give one that it wrote')
  end = start + int.from_bytes(content[start - 4:start], 'little')
  about = _header(path, content[start:end], content[end:])
  found = {}
  for name, each in about.items():
    found[name], end = _unpack(each, content[end:end + sum(each['sizes'])]), end + sum(each['sizes'])
  return found if like is None else _arranged(path, found, like)


def total_bytes(sizes: dict[Path, Sizes]) -> int:
  """Bytes of the whole file.

  >>> total_bytes({'a': Sizes(codes=2, plain=1), '': Sizes(header=4)})
  7
  """
  return sum(sum(each) for each in sizes.values())


def _pack(array):
  """The five parts of an array, and what the header says of it."""
  about = {'dtype': array.dtype.name, 'shape': array.shape}
  bits = np.ascontiguousarray(array).reshape(-1).view(f'u{array.dtype.itemsize}')
  values, symbols = _values(bits)
  if values is not None:
    width, distances, stored = min((_indexed(symbols, width) for width in range(9)), key=_estimate)
    streams = [_coded(stored), _coded(distances)]
    parts = [streams[0][1], streams[1][1], values.tobytes(), streams[0][0] + streams[1][0], b'']
    if sum(map(len, parts)) < bits.nbytes:
      about |= {'stored': len(stored), 'width': width, 'tables': [len(table) for table, _ in streams]}
      return parts, about | {'sizes': [*map(len, parts), 0]}
  return [b'', b'', b'', b'', bits.tobytes()], about | {'sizes': [0, 0, 0, 0, bits.nbytes, 0]}


def _values(bits):
  """The distinct values but 0, and for each entry 0 or one more than the number of its value; None if too many."""
  values = np.unique(bits)
  values = values[values != 0]
  if len(values) > VALUES or not bits.size:
    return None, None
  return values, np.where(bits == 0, 0, np.searchsorted(values, bits) + 1).astype(np.uint16)


def _indexed(symbols, width):
  return width, *sparse_index(symbols, width)


def _estimate(indexed):
  """Bits of both streams by their entropies."""
  return sum(_entropy(np.bincount(stream)) for stream in indexed[1:])


def _entropy(counts):
  counts = counts[counts > 0]
  return float((counts * (np.log2(counts.sum()) - np.log2(counts))).sum()) if counts.size else 0.


def _coded(symbols):
  """The table of a Huffman code, how many codes there are of each length and the symbols, and the codes themselves."""
  if not len(symbols):
    return b'', b''
  code = huffman(np.bincount(symbols))
  table = np.bincount(code.lengths).astype('<u2')
  kind = '<u1' if code.symbols.max() < 256 else '<u2'
  return bytes([len(table), int(kind[-1])]) + table.tobytes() + code.symbols.astype(kind).tobytes(), huffman_encode(
      code, symbols)


def _decoded(table, content, count):
  if not count:
    return np.zeros(0, np.int64)
  split = 2 + 2 * table[0]
  lengths = np.frombuffer(table[2:split], '<u2')
  symbols = np.frombuffer(table[split:], f'<u{table[1]}').astype(np.int64)
  return huffman_decode(Code(symbols, np.repeat(np.arange(len(lengths)), lengths)), content, count)


def _unpack(about, content):
  """The array out of its five parts."""
  dtype, shape = jnp.dtype(about['dtype']), tuple(about['shape'])
  ends = np.cumsum(about['sizes'])
  codes, indices, values, tables, plain = (content[end - size:end] for end, size in zip(ends, about['sizes'][:5]))
  if 'stored' not in about:
    return np.frombuffer(plain, dtype).reshape(shape)
  split = about['tables'][0]
  stored = _decoded(tables[:split], codes, about['stored'])
  distances = _decoded(tables[split:], indices, about['stored']).astype(np.uint8)
  book = np.frombuffer(bytes(dtype.itemsize) + values, f'u{dtype.itemsize}')
  return book[dense_symbols(distances, stored, int(np.prod(shape)))].view(dtype).reshape(shape)


def _header(path, text, body):
  try:
    header = json.loads(zlib.decompress(text))
  except (ValueError, zlib.error) as error:
    raise EffjaxError(f'load_coded: {path} is damaged, its header cannot be read: write it again') from error
  if header['crc32'] != zlib.crc32(body):
    raise EffjaxError(f'load_coded: {path} is damaged, its checksum differs: write it again')
  return header['arrays']


def _arranged(path, found, like):
  wanted = tree.leaves(like)
  if set(found) != set(wanted):
    raise EffjaxError(f'load_coded: {path} has the leaves {sorted(found)}, wanted {sorted(wanted)}: give the tree that '
                      'was saved, or none')
  return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in wanted])
