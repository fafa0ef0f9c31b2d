"""Edits of a .tflite file: int8 inputs and outputs, names of our tensors, nothing that the device does not read."""
import numpy as np

from effjax.export import litert
from effjax.export.network import Network


def read(content: bytes):
  """The file as mutable objects of the schema."""
  s = litert.schema()
  return s.ModelT.InitFromObj(s.Model.GetRootAs(bytearray(content), 0))


def write(model) -> bytes:
  """The bytes of the file."""
  flatbuffers = litert.load(litert.RUNTIME, 'flatbuffers')
  builder = flatbuffers.Builder(1024)
  builder.Finish(model.Pack(builder), b'TFL3')
  return bytes(builder.Output())


def operator_name(model, operator) -> str:
  """The builtin operator's name, e.g. CONV_2D."""
  code = model.operatorCodes[operator.opcodeIndex]
  number = max(code.builtinCode, code.deprecatedBuiltinCode)
  names = vars(litert.schema().BuiltinOperator)
  return next(name for name, value in names.items() if value == number and not name.startswith('_'))


def integer_ends(model) -> None:
  """The file takes and gives int8: the QUANTIZE at its inputs and the DEQUANTIZE at its outputs go."""
  graph = model.subgraphs[0]
  inputs, outputs, kept = list(graph.inputs), list(graph.outputs), []
  for operator in graph.operators:
    name, source, target = operator_name(model, operator), operator.inputs[0], operator.outputs[0]
    if name == 'QUANTIZE' and source in inputs:
      inputs = [target if i == source else i for i in inputs]
    elif name == 'DEQUANTIZE' and target in outputs:
      outputs = [source if i == target else i for i in outputs]
    else:
      kept.append(operator)
  _resign(model, dict(zip(graph.inputs, inputs)) | dict(zip(graph.outputs, outputs)))
  graph.inputs, graph.outputs, graph.operators = inputs, outputs, kept


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


def rename(model, network: Network) -> None:
  """Activations get the names of the network's tensors, constants none.

  A tensor is recognised by its shape, scale and zero point, equal ones by their order.
  """
  graph = model.subgraphs[0]
  waiting = list(network.tensors)
  for tensor in graph.tensors:
    tensor.name = ''
  for index in (*graph.inputs, *(i for operator in graph.operators for i in operator.outputs)):
    tensor = graph.tensors[index]
    match = next((t for t in waiting if is_same(tensor, t)), None)
    if match:
      waiting.remove(match)
      tensor.name = match.name


def is_same(tensor, ours) -> bool:
  """True if a tensor of the file has the shape, scale and zero point of one of the network's."""
  q = quantization(tensor)
  return (q is not None and tuple(tensor.shape) == ours.shape and np.array_equal(q[0], [np.float32(ours.scale)])
          and np.array_equal(q[1], [ours.zero_point]))


def exposed(model):
  """The model with every named activation as an output, so that delegated kernels write it back; their indices."""
  graph = model.subgraphs[0]
  made = [int(i) for operator in graph.operators for i in operator.outputs if graph.tensors[i].name]
  graph.outputs, model.signatureDefs = made, None
  return made
