"""The .tflite file of an integer network."""
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from effjax.export.network import Network
from effjax.export.write import model


def tflite(network: Network, path: str | Path, *, batch: int = 1, inputs: Sequence[str] | None = None,
           outputs: Sequence[str] | None = None, int2: bool = False) -> int:
  """Writes the network as a .tflite file with integer inputs and outputs; its size in bytes.

  Args:
    batch: examples that the file takes at a time.
    inputs, outputs: their names in the file's signature; None takes the tensors'.
    int2: store dense layers of 2 bits four codes to a byte (LiteRT has the kernel, microcontrollers have not).

  Raises:
    EffjaxError: the export extra is missing, names that are too many or too few, an int2 without effect.
  """
  return write(path, model(network, batch=batch, inputs=inputs, outputs=outputs, int2=int2))


def write(path: str | Path, content: bytes) -> int:
  """Writes a whole file or none; its size in bytes."""
  path = Path(path)
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
  try:
    with os.fdopen(handle, 'wb') as file:
      file.write(content)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise
  return len(content)
