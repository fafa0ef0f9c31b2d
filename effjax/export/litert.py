"""The one adapter for LiteRT: the converter's private interface, and the interpreter."""
import contextlib
import functools
import importlib
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from effjax.errors import EffjaxError
from effjax.export import litert_process

CONVERTER, RUNTIME = ('litert-converter', (0, 5), (0, 7)), ('ai-edge-litert', (2, 1), (3, 0))


class ConverterCrash(EffjaxError):
  """The converter ended without a word (a segmentation fault, an abort)."""


def convert(vhlo: bytes, inputs: Sequence[str], outputs: Sequence[str], *, quantized: bool,
            isolated: bool = False) -> bytes:
  """A .tflite file from serialised StableHLO.

  Args:
    vhlo: the program, with parameters as constants.
    inputs, outputs: their names in the signature.
    quantized: turn `quant.fake_quant` composites into integer constants and kernels.
    isolated: convert in a child process, so that a crash of the converter is an error and not the end of this one.

  Raises:
    EffjaxError: the converter is missing, outside the versions that were tried, or cannot convert the program.
    ConverterCrash: it crashed (`isolated` only); an EffjaxError, too.
  """
  ir = load(CONVERTER, 'litert_converter.mlir.ir')
  settings = {'inputs': [*inputs], 'outputs': [*outputs], 'quantized': quantized}
  if isolated:
    return _child(vhlo, settings)
  try:
    return litert_process.converted(vhlo, **settings)
  except (RuntimeError, ValueError, ir.MLIRError) as error:
    raise _failed(error) from error


def _failed(error):
  return EffjaxError(f'litert-converter cannot convert the network: {" ".join(str(error).split())[:400]}')


def _child(vhlo, settings) -> bytes:
  """`litert_process` by its path; -P keeps effjax/export out of its modules."""
  with tempfile.TemporaryDirectory() as folder:
    here = pathlib.Path(folder)
    (here / 'program').write_bytes(vhlo)
    (here / 'settings.json').write_text(json.dumps(settings))
    done = subprocess.run([sys.executable, '-P', litert_process.__file__, folder], capture_output=True, text=True,
                          errors='replace', check=False)
    if done.returncode < 0:
      raise ConverterCrash(f'litert-converter crashed (signal {-done.returncode}) on the network: find the layer by '
                           f'exporting parts of it; its last words: {" ".join(done.stderr.split())[-300:]!r}')
    if done.returncode:
      raise _failed(done.stderr)
    return (here / 'model.tflite').read_bytes()


def load(package: tuple, module: str):
  """A module of an optional package whose version was tried.

  Raises:
    EffjaxError: the package is missing or another version.
  """
  name, lowest, above = package
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # of a library within: else it greets on stderr
  try:
    version = importlib.metadata.version(name)
    found = importlib.import_module(module)
  except importlib.metadata.PackageNotFoundError as error:
    raise EffjaxError(f"export needs {name}, which is not installed ({error}): pip install 'effjax[export]'") from error
  except ImportError as error:
    raise EffjaxError(f"export needs {name}, which is not installed ({error}): pip install 'effjax[export]'") from error
  if not lowest <= tuple(int(part) for part in version.split('.')[:2]) < above:
    text = lambda v: '.'.join(map(str, v))
    raise EffjaxError(f'export was tried with {name} {text(lowest)} to below {text(above)}, got {version}: '
                      "pip install 'effjax[export]'")
  return found


def require() -> None:
  """The converter and the runtime are there, in versions that were tried: to be asked before a long training.

  Raises:
    EffjaxError: one of them is not.
  """
  load(CONVERTER, 'litert_converter.mlir.ir')
  schema()


@functools.cache
def schema():
  """The flatbuffer schema of .tflite files as Python classes."""
  return load(RUNTIME, 'ai_edge_litert.schema_py_generated')


@contextlib.contextmanager
def _running():
  """LiteRT's errors as ours."""
  try:
    yield
  except (RuntimeError, ValueError) as error:
    raise EffjaxError(f'LiteRT cannot run the file: {" ".join(str(error).split())[:400]}') from error


class Interpreter:
  """LiteRT on one thread. `xnnpack=False`: the builtin kernels. `keep`: intermediate tensors can be read."""

  def __init__(self, content: bytes, *, xnnpack: bool = True, keep: bool = False):
    module = load(RUNTIME, 'ai_edge_litert.interpreter')
    kinds = module.OpResolverType
    kind = kinds.AUTO if xnnpack else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with _running():
      self._interpreter = module.Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kind,
                                             experimental_preserve_all_tensors=keep)
      self._interpreter.allocate_tensors()
    self.inputs = self._interpreter.get_input_details()
    self.outputs = self._interpreter.get_output_details()

  def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
    """The outputs for one example (batch axis of 1 included)."""
    self.set(*inputs)
    self.invoke()
    return [self._interpreter.get_tensor(detail['index']) for detail in self.outputs]

  def set(self, *inputs: np.ndarray) -> None:
    """Copies the inputs in; `invoke` then computes."""
    with _running():
      for detail, x in zip(self.inputs, inputs, strict=True):
        self._interpreter.set_tensor(detail['index'], x)

  def invoke(self) -> None:
    """One inference."""
    with _running():
      self._interpreter.invoke()

  def tensor(self, index: int) -> np.ndarray:
    """An activation of the last run, by its index in the file."""
    return self._interpreter.get_tensor(index)
