"""A .tflite file as mutable objects: reading, small edits, writing."""
import struct

import numpy as np

from effjax.errors import EffjaxError
from effjax.export import litert


def read(content: bytes):
  """The file as mutable objects of the schema.

  Raises:
    EffjaxError: it is torn or no .tflite file.
  """
  s = litert.schema()
  try:
    return s.ModelT.InitFromObj(s.Model.GetRootAs(bytearray(content), 0))
  except (struct.error, ValueError, TypeError, IndexError, AttributeError, MemoryError) as error:
    raise EffjaxError(f'the file is torn, or no .tflite file ({type(error).__name__}: {error}): export it again'
                      ) from error


def write(model) -> bytes:
  """The bytes of the file; vectors of the same content are written once, bytes (buffers) at multiples of 16."""
  flatbuffers = litert.load(litert.RUNTIME, 'flatbuffers')

  class Builder(flatbuffers.Builder):
    """Remembers the vectors that it wrote."""
    written: dict = {}

    def CreateNumpyVector(self, x):
      key = (x.dtype.str, x.tobytes())
      if key not in self.written:
        self.written[key] = super().CreateNumpyVector(x)
      return self.written[key]

    def StartVector(self, size, count, alignment):
      return super().StartVector(size, count, 16 if size == 1 else alignment)

  builder = Builder(1024)
  builder.written = {}
  builder.Finish(model.Pack(builder), b'TFL3')
  return bytes(builder.Output())


def operator_name(model, operator) -> str:
  """The builtin operator's name, e.g. CONV_2D."""
  code = model.operatorCodes[operator.opcodeIndex]
  number = max(code.builtinCode, code.deprecatedBuiltinCode)
  names = vars(litert.schema().BuiltinOperator)
  return next(name for name, value in names.items() if value == number and not name.startswith('_'))


def _resign(model, at):
  for signature in model.signatureDefs or ():
    for entry in (*(signature.inputs or ()), *(signature.outputs or ())):
      entry.tensorIndex = int(at[entry.tensorIndex])


def compact(model) -> None:
  """Drops tensors, buffers and operator codes that nothing uses, and metadata.

  The quantization of biases stays: without it XNNPACK leaves the operator to the builtin kernels, whose rounding is
  another.
  """
  graph = model.subgraphs[0]
  lists = [graph, *graph.operators]
  used = sorted({int(i) for part in lists for i in (*part.inputs, *part.outputs) if i >= 0})
  at = {old: new for new, old in enumerate(used)} | {-1: -1}
  for part in lists:
    part.inputs, part.outputs = ([at[int(i)] for i in indices] for indices in (part.inputs, part.outputs))
  _resign(model, at)
  graph.tensors = [graph.tensors[i] for i in used]
  buffers = [model.buffers[0]]
  for tensor in graph.tensors:
    if model.buffers[tensor.buffer].data is None:
      tensor.buffer = 0
    else:
      buffers.append(model.buffers[tensor.buffer])
      tensor.buffer = len(buffers) - 1
  codes = sorted({operator.opcodeIndex for operator in graph.operators})
  for operator in graph.operators:
    operator.opcodeIndex = codes.index(operator.opcodeIndex)
  model.buffers, model.operatorCodes = buffers, [model.operatorCodes[i] for i in codes]
  model.metadata = model.metadataBuffer = None


def quantization(tensor) -> tuple[np.ndarray, np.ndarray] | None:
  """(scales, zero points) of a tensor of the file, None if it has none."""
  q = tensor.quantization
  if q is None or q.scale is None or not len(q.scale):
    return None
  return np.asarray(q.scale, np.float32), np.asarray(q.zeroPoint, np.int64)


def floats(model) -> list[int]:
  """Indices of the floating point tensors."""
  types = litert.schema().TensorType
  return [i for i, tensor in enumerate(model.subgraphs[0].tensors)
          if tensor.type in (types.FLOAT32, types.FLOAT16, types.FLOAT64)]


def exposed(model) -> list[int]:
  """Makes every activation an output, so that delegated kernels write it back; their indices, in order."""
  graph = model.subgraphs[0]
  graph.outputs = [int(i) for operator in graph.operators for i in operator.outputs]
  model.signatureDefs = None
  return graph.outputs
