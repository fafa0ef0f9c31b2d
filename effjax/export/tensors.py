"""Tensors of a .tflite file as mutable objects: their type and content, and new ones."""
import copy

import numpy as np

from effjax.export import litert

BITS = {'INT2': 2, 'INT4': 4, 'INT8': 8, 'INT16': 16, 'INT32': 32, 'INT64': 64}  # of the integer types


def kind(tensor) -> str:
  """The name of its type, e.g. FLOAT32."""
  names = vars(litert.schema().TensorType)
  return next(name for name, value in names.items() if value == tensor.type and not name.startswith('_'))


def bits(tensor) -> int:
  """Of each of its integers; 0 if it holds none."""
  return BITS.get(kind(tensor), 0)


def content(model, tensor) -> np.ndarray | None:
  """The bytes of a constant; None of an activation."""
  data = model.buffers[tensor.buffer].data
  return None if data is None or not len(data) else np.asarray(data, np.uint8)


def codes(model, tensor) -> np.ndarray:
  """The integers of a constant; several to a byte below 8 bits, the first in the lowest ones."""
  data, n, size = content(model, tensor), bits(tensor), int(np.prod(tensor.shape))
  if n < 8:
    parts = ((data[:, None] >> np.arange(0, 8, n, dtype=np.uint8)).ravel() & (2 ** n - 1)).astype(np.int8)
    return np.where(parts >= 2 ** (n - 1), parts - 2 ** n, parts).astype(np.int8)[:size].reshape(tensor.shape)
  return data.view(f'<i{n // 8}').reshape(tensor.shape)


def store(model, tensor, value: np.ndarray, kind: str) -> None:
  """Puts the bytes of `value` into a buffer of the tensor's own, which is then of that type."""
  buffer = litert.schema().BufferT()
  buffer.data = np.frombuffer(value.tobytes(), np.uint8)
  model.buffers.append(buffer)
  tensor.buffer, tensor.type = len(model.buffers) - 1, getattr(litert.schema().TensorType, kind)


def new(model, tensor) -> int:
  """The index of a new tensor of its shape and type, without content."""
  made = copy.copy(tensor)
  made.buffer, made.quantization = 0, None
  model.subgraphs[0].tensors.append(made)
  return len(model.subgraphs[0].tensors) - 1


def dequantize(model, source: int, output: int):
  """The operator DEQUANTIZE between two tensors, for which the graph has a code, but not yet the operator."""
  s, version = litert.schema(), {'FLOAT16': 3, 'INT8': 5, 'INT4': 6}[kind(model.subgraphs[0].tensors[source])]
  code, operator = s.OperatorCodeT(), s.OperatorT()
  code.builtinCode = code.deprecatedBuiltinCode = s.BuiltinOperator.DEQUANTIZE
  code.version = version
  operator.opcodeIndex, operator.inputs, operator.outputs = listed(model, code), [source], [output]
  operator.builtinOptionsType, operator.builtinOptions = s.BuiltinOptions.DequantizeOptions, s.DequantizeOptionsT()
  return operator


def listed(model, code) -> int:
  """The index of an operator code, which is added if need be."""
  known = [(other.builtinCode, other.version) for other in model.operatorCodes]
  if (code.builtinCode, code.version) not in known:
    model.operatorCodes.append(code)
  return [*known, (code.builtinCode, code.version)].index((code.builtinCode, code.version))
