"""Is the file the network? An audit of what it holds, and its outputs against the simulation, code by code."""
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from effjax.errors import EffjaxError
from effjax.export import flatbuffer, litert
from effjax.export.audit import audit, float_tensors
from effjax.export.network import Network
from effjax.export.simulate import quantized, simulate

_TRACED = 64  # examples whose every tensor is compared


class Agreement(NamedTuple):
  """Codes of the file against codes of the simulation. argmax_agreement: examples with the same largest output."""
  argmax_agreement: float
  max_code_difference: int
  codes_equal: float


class Row(NamedTuple):
  """One tensor: fraction of equal codes and the largest difference, under both sets of kernels."""
  name: str
  op: str
  bits: int
  xnnpack_equal: float
  xnnpack_max: int
  builtin_equal: float
  builtin_max: int


class Report(NamedTuple):
  """What `verify` found. The first three are under XNNPACK, LiteRT's default; `builtin` under the builtin kernels."""
  argmax_agreement: float
  max_code_difference: int
  codes_equal: float
  float_tensors: int
  audit_problems: tuple[str, ...]
  builtin: Agreement
  tensors: tuple[Row, ...]
  examples: int

  def to_dict(self) -> dict[str, Any]:
    """Plain numbers, strings, lists and dictionaries."""
    rows = [row._asdict() for row in self.tensors]
    problems = list(self.audit_problems)
    return self._asdict() | {'audit_problems': problems, 'builtin': self.builtin._asdict(), 'tensors': rows}


def verify(path: str | Path, network: Network, inputs: np.ndarray | tuple) -> Report:
  """Reads the file at `path`, audits it against `network`, and runs both on real `inputs` (batch first).

  Raises:
    EffjaxError: the file cannot be read or run, or the export extra is missing.
  """
  content = read(path)
  codes = codes_of(network, inputs if isinstance(inputs, tuple) else (inputs,))
  expected, tensors = _simulated(network, codes)
  runs = {kind: run(content, codes, xnnpack=kind == 'xnnpack') for kind in ('xnnpack', 'builtin')}
  overall = {kind: agreement(expected, got) for kind, got in runs.items()}
  return Report(*overall['xnnpack'], float_tensors(content), tuple(audit(content, network)), overall['builtin'],
                _rows(content, network, codes, tensors), len(codes[0]))


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
  """The int8 codes that the application hands to the file."""
  return tuple(np.asarray(quantized(t, x)).astype(np.int8) for t, x in zip(network.inputs, inputs, strict=True))


def run(content: bytes, codes: Sequence[np.ndarray], *, xnnpack: bool) -> list[np.ndarray]:
  """The file's outputs for int8 inputs, one example at a time (the files hold a batch of one)."""
  interpreter = litert.Interpreter(content, xnnpack=xnnpack)
  results = [interpreter.run(*(q[i:i + 1] for q in codes)) for i in range(len(codes[0]))]
  return [np.concatenate(parts) for parts in zip(*results, strict=True)]


def agreement(expected: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> Agreement:
  """How far int8 outputs agree; argmax over the last axis of the first output, the first of equals.

  >>> agreement([np.int8([[1, 5, 2]])], [np.int8([[1, 4, 2]])])
  Agreement(argmax_agreement=1.0, max_code_difference=1, codes_equal=0.6666666666666666)
  """
  difference = np.concatenate([np.abs(a.astype(int) - b).ravel() for a, b in zip(expected, got, strict=True)])
  same = (expected[0].argmax(-1) == got[0].argmax(-1)).mean()
  return Agreement(float(same), int(difference.max(initial=0)), float((difference == 0).mean()))


def _simulated(network, codes):
  """Output codes for all examples, and every tensor's for the first ones."""
  with jax.default_device(jax.devices('cpu')[0]):
    real = lambda part: tuple((q[part].astype(np.float32) - t.zero_point) * np.float32(t.scale)
                              for q, t in zip(codes, network.inputs, strict=True))
    f = jax.jit(lambda x: simulate(network, x, codes=True, collect=True))
    size = len(codes[0])
    outputs = [jax.tree.leaves(f(real(slice(i, i + 256)))[0]) for i in range(0, size, 256)]
    tensors = jax.tree.map(np.asarray, f(real(slice(0, _TRACED)))[1])
  return [np.concatenate(parts) for parts in zip(*outputs, strict=True)], tensors


def _rows(content, network, codes, tensors):
  model = flatbuffer.read(content)
  names = [model.subgraphs[0].tensors[i].name.decode() for i in flatbuffer.exposed(model)]
  first = [q[:_TRACED] for q in codes]
  opened = flatbuffer.write(model)
  got = {kind: dict(zip(names, run(opened, first, xnnpack=kind))) for kind in (True, False)}
  rows = []
  for node in network.nodes:
    name = node.output.name
    if name in got[True] and got[True][name].shape == tensors[name].shape:
      pair = [agreement([tensors[name]], [got[kind][name]]) for kind in (True, False)]
      rows.append(Row(name, node.op, node.bits, *(x for a in pair for x in (a.codes_equal, a.max_code_difference))))
  return tuple(rows)
