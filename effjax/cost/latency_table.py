"""Measured operators as plain data, and their file."""
import json
import math
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from effjax.errors import EffjaxError

FORMATS = {4: 'int4', 8: 'int8', 32: 'float32'}  # of the weights, by the bits that a code takes in the file


class Op(NamedTuple):
  """One operator at one shape, for one example.

  kind: conv, grouped, depthwise or dense. A product at several positions is a 1x1 conv.
  kernel, stride, dilation: of its window. size: (height, width) of its output.
  groups: of a grouped convolution; of a depthwise one the outputs per input channel; else 1.
  cin: inputs that one output sums over at each place of the kernel: 1 for depthwise. cout: output channels.
  """
  kind: str
  kernel: tuple[int, ...]
  stride: int
  dilation: int
  groups: int
  size: tuple[int, ...]
  cin: int
  cout: int


class Entry(NamedTuple):
  """`op` with weights of `format` (float32, int8 or int4) took `ms` milliseconds, the fixed overhead taken off."""
  format: str
  op: Op
  ms: float


class LatencyTable(NamedTuple):
  """What `effjax.export.measure` measured.

  entries: in any order; the channel counts of one kind of operator at one size need not form a whole grid.
  overhead_ms: of one inference, whatever the network. machine: what measured it, plain data.
  """
  entries: tuple[Entry, ...]
  overhead_ms: float
  machine: dict[str, Any]


def save_latency_table(table: LatencyTable, path: str | FilePath) -> None:
  """Writes the table as JSON: the machine, the overhead and one line for each entry."""
  head = {'machine': table.machine, 'overhead_ms': table.overhead_ms, 'columns': ['format', *Op._fields, 'ms']}
  lines = ',\n'.join(json.dumps([e.format, *e.op, e.ms]) for e in table.entries)
  FilePath(path).write_text(json.dumps(head, indent=1)[:-2] + f',\n "entries": [\n{lines}\n]}}\n')


def load_latency_table(path: str | FilePath) -> LatencyTable:
  """Reads what `save_latency_table` wrote.

  Raises:
    EffjaxError: the file is missing, is no table, or holds none or impossible measurements.
  """
  try:
    found = json.loads(FilePath(path).read_text())
    made = tuple(_entry(*fields) for fields in found['entries'])
    table = LatencyTable(made, float(found['overhead_ms']), dict(found['machine']))
  except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
    raise EffjaxError(f'{path} is no latency table ({type(error).__name__}: {error}): make one with '
                      'effjax.export.measure and cost.save_latency_table') from error
  if not made or not all(e.format in FORMATS.values() and 0 <= e.ms < math.inf for e in made):
    raise EffjaxError(f'{path} is no latency table: wanted entries of {list(FORMATS.values())} with milliseconds of at '
                      'least 0, got others or none: measure again with effjax.export.measure')
  return table


def _entry(name, *fields):
  *shape, ms = fields
  op = Op(*(tuple(map(int, f)) if isinstance(f, list) else f for f in shape))
  return Entry(name, op, float(ms))
