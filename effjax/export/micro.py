"""The adapter for TFLite Micro: the file as a microcontroller runs it, and the arena that it needs."""
import importlib.util
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from effjax.errors import EffjaxError
from effjax.export import micro_process

PACKAGE = 'tflite_micro'
_ARENA = re.compile(r'Arena allocation (total|head) (\d+) bytes')


class Micro(NamedTuple):
  """outputs: integers, batch first. arena_bytes: all memory that TFLite Micro asks for.

  activation_bytes: the part for activations and scratch, which `cost.peak_ram` predicts. The rest describes tensors and
  operators, and is larger here, with pointers of 8 bytes, than on a microcontroller.
  """
  outputs: list[np.ndarray]
  arena_bytes: int
  activation_bytes: int


def micro(content: bytes, codes: Sequence[np.ndarray]) -> Micro:
  """The file's outputs under TFLite Micro's reference kernels for integer inputs, one example at a time.

  It runs in a process of its own, because TFLite Micro reports to stderr and may crash on a file that it cannot run.

  Args:
    content: a file for a batch of one.
    codes: for each input the integers that the application hands over, batch first.

  Raises:
    EffjaxError: the micro extra is missing; TFLite Micro cannot run the file (its own words are in the text).
  """
  if importlib.util.find_spec(PACKAGE) is None:
    raise EffjaxError("export to microcontrollers needs tflite-micro, which is not installed: "
                      "pip install 'effjax[micro]'")
  with tempfile.TemporaryDirectory() as folder:
    here = pathlib.Path(folder)
    (here / 'model.tflite').write_bytes(content)
    np.savez(here / 'inputs.npz', *codes)
    said = _child(folder)
    with np.load(here / 'outputs.npz') as saved:
      return Micro([saved[f'arr_{i}'] for i in range(len(saved))], *arena_bytes(said))


def arena_bytes(text: str) -> tuple[int, int]:
  """The arena's size and that of its activations, out of TFLite Micro's report of its allocations.

  >>> arena_bytes('... Arena allocation total 3120 bytes ... Arena allocation head 1584 bytes')
  (3120, 1584)
  """
  found = dict(_ARENA.findall(text))
  if len(found) < 2:
    raise EffjaxError(f'TFLite Micro reported no arena, but {" ".join(text.split())[:200]!r}: install the version of '
                      "tflite-micro that effjax was tried with, pip install 'effjax[micro]'")
  return int(found['total']), int(found['head'])


def _child(folder) -> str:
  """What the process printed; -P keeps effjax/export out of its path."""
  command = [sys.executable, '-P', micro_process.__file__, folder]
  done = subprocess.run(command, capture_output=True, text=True, errors='replace', check=False)
  if done.returncode:
    crash = f' (signal {-done.returncode})' if done.returncode < 0 else ''
    raise EffjaxError(f'TFLite Micro cannot run the file{crash}: {" ".join(done.stderr.split())[:400]}')
  return done.stderr
