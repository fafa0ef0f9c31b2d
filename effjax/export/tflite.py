"""The .tflite file: the integer network, or a float function."""
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from effjax.export import flatbuffer, litert
from effjax.export.lower import lower, stablehlo
from effjax.export.network import Network
from effjax.tree import PyTree


def tflite(network: Network, path: str | Path) -> int:
  """Writes the network as a .tflite file with int8 inputs and outputs; its size in bytes.

  Raises:
    EffjaxError: the export extra is missing, or the converter refuses the network.
  """
  content = litert.convert(lower(network), len(network.inputs), len(network.outputs), quantized=True)
  model = flatbuffer.read(content)
  flatbuffer.integer_ends(model)
  flatbuffer.compact(model)
  flatbuffer.rename(model, network)
  return write(path, flatbuffer.write(model))


def float_tflite(fn: Callable, params: PyTree, x: PyTree, path: str | Path) -> int:
  """Writes `fn(params, x)` as a float32 .tflite file for a batch of one; its size in bytes."""
  one = lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), jnp.float32)
  run = lambda *leaves: jax.tree.leaves(fn(params, jax.tree.unflatten(jax.tree.structure(x), leaves)))
  inputs = [one(leaf) for leaf in jax.tree.leaves(x)]
  content = litert.convert(stablehlo(run, *inputs), len(inputs), len(jax.eval_shape(run, *inputs)), quantized=False)
  model = flatbuffer.read(content)
  flatbuffer.compact(model)
  return write(path, flatbuffer.write(model))


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
