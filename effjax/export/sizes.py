"""Where the bytes of a .tflite file go."""
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from effjax.export import flatbuffer


class Sizes(NamedTuple):
  """Bytes of a file: weights and other constants; scales and zero points; biases; operators, tensors and the rest."""
  codes: int
  scales: int
  biases: int
  graph: int


def sizes(content: bytes) -> Sizes:
  """How a file's bytes are divided; what it stores once for several tensors counts once.

  >>> from effjax.export.network import Network, Node, Tensor
  >>> from effjax.export.write import model
  >>> codes, ones = np.ones((8, 4), np.int8), np.ones(4, np.float32)
  >>> node = Node('dense', (0,), Tensor('y', (1, 4), 1., 0), '', {}, codes, ones / 3, np.arange(4, dtype=np.int32))
  >>> found = sizes(model(Network((Tensor('x', (1, 8), 1., 0),), (node,), (1,))))
  >>> found.codes, found.biases
  (32, 16)
  """
  model = flatbuffer.read(content)
  graph = model.subgraphs[0]
  fed = {int(i) for operator in graph.operators for i in operator.inputs if i >= 0}
  constants = [tensor for i, tensor in enumerate(graph.tensors) if i in fed and _data(model, tensor) is not None]
  is_bias = lambda tensor: len(tensor.shape) == 1 and flatbuffer.quantization(tensor) is not None
  biases = _once(_data(model, tensor) for tensor in constants if is_bias(tensor))
  codes = _once(_data(model, tensor) for tensor in constants if not is_bias(tensor))
  scales = _once(part for tensor in graph.tensors for part in flatbuffer.quantization(tensor) or ())
  return Sizes(codes, scales, biases, len(content) - codes - scales - biases)


def _data(model, tensor):
  return model.buffers[tensor.buffer].data


def _once(arrays: Iterable[np.ndarray]) -> int:
  return sum(len(content) for content in {np.asarray(array).tobytes() for array in arrays})
