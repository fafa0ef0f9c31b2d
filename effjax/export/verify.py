"""Is the file the network? An audit of what it holds, and every tensor against the simulation, code by code."""
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from effjax.errors import EffjaxError
from effjax.export import flatbuffer, litert
from effjax.export.audit import audit, float_tensors
from effjax.export.micro import micro as run_micro
from effjax.export.network import Network
from effjax.export.simulate import quantized, simulate
from effjax.export.sizes import Sizes, sizes

KERNELS = ('xnnpack', 'builtin')
_CHUNK = 64  # examples whose tensors are held at a time


class Agreement(NamedTuple):
  """Output codes of the file against those of the simulation, under one set of kernels.

  argmax_agreement: examples with the same largest output. first_difference: the first tensor in execution order whose
  codes are not all equal, '' if there is none.
  """
  argmax_agreement: float
  max_code_difference: int
  codes_equal: float
  first_difference: str = ''


class Cell(NamedTuple):
  """One tensor under one set of kernels: fraction of equal codes, largest difference, the example that has it."""
  equal: float
  largest: int
  worst_example: int


_OTHER = Cell(0., 255, 0)  # of a tensor that is not there


class Row(NamedTuple):
  """One tensor of the file and the kernel that makes it."""
  name: str
  op: str
  bits: int
  xnnpack: Cell
  builtin: Cell


class OnMicro(NamedTuple):
  """A run in TFLite Micro against the builtin simulation: its reference kernels round some sums the other way.

  arena_bytes, activation_bytes: see `effjax.export.micro`.
  """
  agreement: Agreement
  arena_bytes: int
  activation_bytes: int


class Report(NamedTuple):
  """What `verify` found: agreement under XNNPACK (LiteRT's default) and under the builtin kernels.

  sizes: of the file's parts, in bytes. micro: the same in TFLite Micro, None if it was not asked for.
  """
  xnnpack: Agreement
  builtin: Agreement
  float_tensors: int
  audit_problems: tuple[str, ...]
  tensors: tuple[Row, ...]
  examples: int
  sizes: Sizes
  micro: OnMicro | None = None

  @property
  def same(self) -> bool:
    """True if the file is the network: a clean audit, and every code of every tensor equal under both sets."""
    cells = [cell for row in self.tensors for cell in (row.xnnpack, row.builtin)]
    outputs = all(run.codes_equal == 1 for run in (self.xnnpack, self.builtin))
    return not self.audit_problems and not self.float_tensors and outputs and all(cell.equal == 1 for cell in cells)

  def to_dict(self) -> dict[str, Any]:
    """Plain numbers, strings, lists and dictionaries."""
    rows = [{**row._asdict(), **{kind: getattr(row, kind)._asdict() for kind in KERNELS}} for row in self.tensors]
    runs = {kind: getattr(self, kind)._asdict() for kind in KERNELS}
    micro = self.micro and {**self.micro._asdict(), 'agreement': self.micro.agreement._asdict()}
    return {**self._asdict(), **runs, 'audit_problems': list(self.audit_problems), 'tensors': rows, 'micro': micro,
            'sizes': self.sizes._asdict(), 'same': self.same}


def verify(path: str | Path, network: Network, inputs: np.ndarray | tuple, *, traced: int = 64,
           micro: bool = False) -> Report:
  """Reads the file at `path`, audits it against `network`, and runs both on real `inputs` (batch first).

  Args:
    path: a file for a batch of one.
    traced: of how many examples every tensor is compared; of the others the outputs are.
    micro: also run it in TFLite Micro (needs effjax[micro]).

  Raises:
    EffjaxError: the file cannot be read or run, or a package that is needed is missing.
  """
  content = read(path)
  problems, floats = tuple(audit(content, network)), float_tensors(content)
  codes = codes_of(network, inputs if isinstance(inputs, tuple) else (inputs,))
  expected, tensors = zip(*(_simulated(network, codes, kind, traced) for kind in KERNELS))
  runs = [agreement(wanted, run(content, codes, xnnpack=kind == 'xnnpack')) for kind, wanted in zip(KERNELS, expected)]
  cells = [_cells(content, network, [q[:traced] for q in codes], *pair) for pair in zip(KERNELS, tensors)]
  made = [node for node in network.nodes if node.op != 'constant']
  rows = tuple(Row(node.output.name, node.op, node.bits, *pair) for node, *pair in zip(made, *cells))
  first = [next((row.name for row in rows if getattr(row, kind).equal < 1), '') for kind in KERNELS]
  return Report(*(found._replace(first_difference=name) for found, name in zip(runs, first)), floats, problems, rows,
                len(codes[0]), sizes(content), _on_micro(content, codes, expected[1]) if micro else None)


def read(path: str | Path) -> bytes:
  """The file's bytes, checked to be a .tflite file."""
  try:
    content = Path(path).read_bytes()
  except OSError as error:
    raise EffjaxError(f'{path} cannot be read ({error.strerror}): export it first') from error
  if content[4:8] != b'TFL3':
    raise EffjaxError(f'{path} is not a .tflite file: export it again')
  return content


def codes_of(network: Network, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
  """The integers that the application hands to the file."""
  return tuple(np.asarray(quantized(t, x)).astype(f'int{t.bits}')
               for t, x in zip(network.inputs, inputs, strict=True))


def run(content: bytes, codes: Sequence[np.ndarray], *, xnnpack: bool) -> list[np.ndarray]:
  """The file's outputs for integer inputs, one example at a time (the files hold a batch of one)."""
  interpreter = litert.Interpreter(content, xnnpack=xnnpack)
  results = [interpreter.run(*(q[i:i + 1] for q in codes)) for i in range(len(codes[0]))]
  return [np.concatenate(parts) for parts in zip(*results, strict=True)]


def agreement(expected: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> Agreement:
  """How far integer outputs agree; argmax over the last axis of the first output, the first of equals.

  >>> agreement([np.int8([[1, 5, 2]])], [np.int8([[1, 4, 2]])])[:3]
  (1.0, 1, 0.6666666666666666)
  """
  if [x.shape for x in expected] != [x.shape for x in got]:
    return Agreement(0., _OTHER.largest, 0.)
  difference = np.concatenate([np.abs(a.astype(int) - b).ravel() for a, b in zip(expected, got, strict=True)])
  same = (expected[0].argmax(-1) == got[0].argmax(-1)).mean()
  return Agreement(float(same), int(difference.max(initial=0)), float((difference == 0).mean()))


def _on_micro(content, codes, expected) -> OnMicro:
  found = run_micro(content, codes)
  return OnMicro(agreement(expected, found.outputs), found.arena_bytes, found.activation_bytes)


def _cells(content, network, codes, kind, expected) -> list[Cell]:
  """Every tensor that a node makes; one that the file has not, or in another shape, differs altogether."""
  model = flatbuffer.read(content)
  made = flatbuffer.exposed(model)
  got = dict(zip(made, run(flatbuffer.write(model), codes, xnnpack=kind == 'xnnpack'), strict=True))
  nodes = [(i, node) for i, node in enumerate(network.nodes, len(network.inputs)) if node.op != 'constant']
  return [_cell(expected[node.output.name], got.get(i)) for i, node in nodes]


def _cell(expected, got) -> Cell:
  if got is None or got.shape != expected.shape:
    return _OTHER
  difference = np.abs(expected.astype(int) - got).reshape(len(expected), -1)
  return Cell(float((difference == 0).mean()), int(difference.max(initial=0)), int(difference.max(1).argmax()))


def _simulated(network, codes, kind, traced) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
  """The outputs of all examples, and every tensor of the first ones by name, as one compiled function gives them."""
  chunk, outputs, tensors = min(_CHUNK, len(codes[0])), [], []
  with jax.default_device(jax.devices('cpu')[0]):
    f = jax.jit(lambda x: simulate(network, x, kernels=kind, codes=True, collect=True))
    for start in range(0, len(codes[0]), chunk):
      part = [np.resize(q[start:start + chunk], (chunk, *q.shape[1:])) for q in codes]  # the last one is filled up
      out, every = f(tuple((q.astype(np.float32) - t.zero_point) * np.float32(t.scale)
                           for q, t in zip(part, network.inputs, strict=True)))
      outputs.append([np.asarray(x) for x in jax.tree.leaves(out)])
      tensors += [jax.tree.map(np.asarray, every)] if start < traced else []
  joined = [np.concatenate(parts)[:len(codes[0])] for parts in zip(*outputs, strict=True)]
  firsts = jax.tree.map(lambda *parts: np.concatenate([_filled(p, chunk) for p in parts]), *tensors)
  return joined, {name: each[:min(traced, len(codes[0]))] for name, each in firsts.items()}


def _filled(part, chunk):
  """A constant is there once, whatever the batch."""
  return np.broadcast_to(part, (chunk, *part.shape[1:]))
