"""Edits of a float .tflite file: float16 constants, integer weights where kernels read them, names."""
import copy
from collections.abc import Sequence

import numpy as np

from effjax.export import flatbuffer, litert, tensors
from effjax.export.write import packed

# Operators with a fast kernel of float inputs and integer weights: the axis of the output channels, and the version.
# DEPTHWISE_CONV_2D has one, too, but XNNPACK has not: with it MobileNetV2 takes twice the time.
DYNAMIC = {'CONV_2D': (0, 5), 'FULLY_CONNECTED': (0, 12)}


def name(model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
  """Names the ends, in the signature and of the tensors; no other tensor keeps a name."""
  s, graph, signature = litert.schema(), model.subgraphs[0], model.signatureDefs[0]
  for tensor in graph.tensors:
    tensor.name = None

  def ends(names, indices):
    for end, index in zip(names, indices, strict=True):
      graph.tensors[index].name = end
      made = s.TensorMapT()
      made.name, made.tensorIndex = end, int(index)
      yield made

  signature.inputs, signature.outputs = list(ends(inputs, graph.inputs)), list(ends(outputs, graph.outputs))


def half(model) -> None:
  """Stores each float32 constant of more than one element as float16, followed by a DEQUANTIZE.

  One that has a finite value beyond float16's range (65504) stays, and so does one that is an output.
  """
  graph, wide, operators = model.subgraphs[0], {}, []
  for operator in graph.operators:
    for i in {int(i) for i in operator.inputs} - wide.keys() - {-1, *map(int, graph.outputs)}:
      if (value := _narrowed(model, graph.tensors[i])) is not None:
        wide[i] = tensors.new(model, graph.tensors[i])
        tensors.store(model, graph.tensors[i], value, 'FLOAT16')
        operators.append(tensors.dequantize(model, i, wide[i]))
    operator.inputs = [wide.get(int(i), int(i)) for i in operator.inputs]
    operators.append(operator)
  graph.operators = operators


def fold(model) -> None:
  """Applies what only moves the entries of an integer weight to its codes: reshape, transpose, reverse.

  The converter leaves these behind DEQUANTIZE, to run at each inference. A weight whose scales would then no longer
  belong to one axis keeps them.
  """
  graph, kept, made = model.subgraphs[0], [], dequantized(model)
  for operator in graph.operators:
    source = made.get(int(operator.inputs[0])) if len(operator.inputs) else None
    moved = None if source is None else _moved(model, operator, graph.tensors[source])
    if moved is not None:
      output = int(operator.outputs[0])
      made[output] = weight = tensors.new(model, graph.tensors[output])
      old, (codes, *scales) = graph.tensors[source], moved
      tensors.store(model, graph.tensors[weight], packed(codes, tensors.bits(old)), tensors.kind(old))
      graph.tensors[weight].quantization = _scales(*scales)
    kept.append(operator if moved is None else tensors.dequantize(model, weight, output))
  graph.operators = kept
  _drop_unread(graph)


def dynamic(model) -> None:
  """Kernels of convolutions and dense layers read the codes: they quantize their input at each inference.

  A weight whose scales do not belong to the output channels, one that another operator reads, and a depthwise kernel
  stay behind their DEQUANTIZE, the last in int8 whatever its bits: from int4 it would run at each inference.
  """
  graph, made = model.subgraphs[0], dequantized(model)
  for operator in graph.operators:
    operation = flatbuffer.operator_name(model, operator)
    axis, version = DYNAMIC.get(operation, (0, 0))
    source = made.get(int(operator.inputs[1])) if len(operator.inputs) > 1 else None
    weight = None if source is None else graph.tensors[source]
    if weight is not None and operation == 'DEPTHWISE_CONV_2D' and tensors.bits(weight) == 4:
      tensors.store(model, weight, packed(tensors.codes(model, weight), 8), 'INT8')
    if weight is None or not version or not _per_output(weight, axis):
      continue
    operator.inputs[1] = source
    code = copy.copy(model.operatorCodes[operator.opcodeIndex])
    code.version = max(code.version, version)
    operator.opcodeIndex = tensors.listed(model, code)
    if operation == 'FULLY_CONNECTED':
      operator.builtinOptions.asymmetricQuantizeInputs = True  # as XNNPACK does in any case
  _drop_unread(graph)


def dequantized(model) -> dict[int, int]:
  """The tensors that DEQUANTIZE makes of integer constants: the float one to the integer one."""
  graph = model.subgraphs[0]
  pairs = {int(o.outputs[0]): int(o.inputs[0]) for o in graph.operators
           if flatbuffer.operator_name(model, o) == 'DEQUANTIZE'}
  constant = lambda tensor: tensors.kind(tensor) in tensors.BITS and tensors.content(model, tensor) is not None
  return {made: source for made, source in pairs.items() if constant(graph.tensors[source])}


def _moved(model, operator, source):
  """(codes, scales, their axis) after the operator; None if it does more than move, or no axis is left."""
  graph = model.subgraphs[0]
  settings = [tensors.content(model, graph.tensors[i]) for i in operator.inputs[1:]]
  if any(data is None for data in settings):
    return None
  how = settings[0].view(np.int32) if settings else ()
  moves = {'RESHAPE': lambda x: x.reshape(graph.tensors[operator.outputs[0]].shape),
           'TRANSPOSE': lambda x: x.transpose(how), 'REVERSE_V2': lambda x: np.flip(x, tuple(how))}
  move = moves.get(flatbuffer.operator_name(model, operator))
  if move is None:
    return None
  codes, scales = move(tensors.codes(model, source)), move(_broadcast(source))
  if (scales == scales.flat[0]).all():
    return codes, scales.flat[:1], 0
  lines = [np.moveaxis(scales, axis, -1).reshape(-1, size) for axis, size in enumerate(scales.shape)]
  return next(((codes, line[0], axis) for axis, line in enumerate(lines) if (line == line[0]).all()), None)


def _broadcast(weight):
  """Each entry's scale."""
  scales, _ = flatbuffer.quantization(weight)
  shape = [1] * len(weight.shape)
  if scales.size > 1:
    shape[weight.quantization.quantizedDimension] = -1
  return np.broadcast_to(scales.reshape(shape), weight.shape)


def _per_output(weight, axis) -> bool:
  """The scales belong to `axis`; a single one is repeated along it, which is what kernels are best tried with."""
  q, (scales, _) = weight.quantization, flatbuffer.quantization(weight)
  if scales.size == 1:
    weight.quantization = _scales(np.repeat(scales, weight.shape[axis]), axis)
    return True
  return q.quantizedDimension == axis


def _scales(scales, axis):
  made = litert.schema().QuantizationParametersT()
  made.scale, made.zeroPoint = np.asarray(scales, np.float32), np.zeros(len(scales), np.int64)
  made.quantizedDimension = axis
  return made


def _narrowed(model, tensor) -> np.ndarray | None:
  """A float32 constant of several elements in float16, if that has all its finite values."""
  if tensors.kind(tensor) != 'FLOAT32' or np.prod(tensor.shape) <= 1 or tensors.content(model, tensor) is None:
    return None
  value = tensors.content(model, tensor).view(np.float32)
  fits = (np.abs(value[np.isfinite(value)]) <= np.finfo(np.float16).max).all()
  return value.astype(np.float16) if fits else None


def _drop_unread(graph) -> None:
  """Takes out operators whose results nothing reads, the last first."""
  read, kept = {int(i) for i in graph.outputs}, []
  for operator in reversed(graph.operators):
    if any(int(i) in read for i in operator.outputs):
      read.update(int(i) for i in operator.inputs)
      kept.append(operator)
  graph.operators = kept[::-1]
