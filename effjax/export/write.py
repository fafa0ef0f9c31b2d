"""The integer network as the bytes of a .tflite file: one operator a node, nothing converted and nothing guessed."""
from collections.abc import Sequence

import numpy as np

from effjax.errors import EffjaxError
from effjax.export import flatbuffer, litert
from effjax.export.network import WEIGHTED, Network, Node, Tensor, container, one_scale
from effjax.export.operator_options import OPERATORS, constants, options

_TYPES = {2: 'INT2', 4: 'INT4', 8: 'INT8', 16: 'INT16', 32: 'INT32', 64: 'INT64'}


def model(network: Network, *, batch: int = 1, inputs: Sequence[str] | None = None,
          outputs: Sequence[str] | None = None, int2: bool = False) -> bytes:
  """The file's bytes.

  Tensor i of the file is tensor i of `network.tensors`; weights and other constants follow. Only inputs and outputs
  have names. Vectors of equal content (zero points above all) are stored once, buffers are aligned to 16 bytes.

  Args:
    batch: the size of every activation's first axis.
    inputs, outputs: their names in the signature `serving_default`; None takes the tensors' own.
    int2: dense layers of 2 bits are stored four codes to a byte; else two to a byte, as other kernels need them.

  Raises:
    EffjaxError: as many names as inputs or outputs are wanted; int2 without such a layer.
  """
  ends = [_named(network, given, indices, what) for given, indices, what in
          ((inputs, range(len(network.inputs)), 'inputs'), (outputs, network.outputs, 'outputs'))]
  if int2 and all(container(node, int2=True) != 2 for node in network.nodes if node.codes is not None):
    raise EffjaxError('tflite: int2=True, but no dense layer has 2 bits, a multiple of 4 inputs and several outputs: '
                      'leave it out, or train one with bits=2')
  writer = _Writer(batch, int2)
  repeated = {i for node in network.nodes if node.op == 'concat' for i in node.inputs}  # others broadcast
  for i, tensor in enumerate(network.tensors):
    node = network.nodes[i - len(network.inputs)] if i >= len(network.inputs) else None
    constant = node.codes if node and node.op == 'constant' else None
    writer.activation(tensor, constant, batch if constant is None or i in repeated else 1)
  for i, node in enumerate(network.nodes):
    if node.op != 'constant':
      writer.operator(network, node, len(network.inputs) + i)
  return writer.finish(network, *ends)


def _named(network, given, indices, what):
  if given is not None and len(given) != len(indices):
    raise EffjaxError(f'tflite: {len(given)} names for {len(indices)} {what}: give {len(indices)}')
  return list(given or (network.tensors[i].name for i in indices))


class _Writer:
  """Collects buffers, tensors, operator codes and operators."""

  def __init__(self, batch, int2):
    self.schema, self.batch, self.int2 = litert.schema(), batch, int2
    self.buffers, self.tensors, self.operators = [self.schema.BufferT()], [], []
    self.codes: list[tuple[str, int]] = []

  def activation(self, tensor: Tensor, constant: np.ndarray | None, batch: int) -> int:
    constant = constant if constant is None else np.repeat(constant, batch, 0)
    zero = None if tensor.bits == 32 else [tensor.zero_point]
    return self.tensor((batch, *tensor.shape[1:]), tensor.bits, constant, [tensor.scale], zero)

  def tensor(self, shape, bits, value=None, scale=None, zero=None, axis=0) -> int:
    """A tensor; `zero` None means without quantization."""
    made = self.schema.TensorT()
    made.shape, made.type, made.buffer = np.int32(shape), self.type(bits), 0
    if value is not None:
      made.buffer = len(self.buffers)
      self.buffers.append(self.schema.BufferT())
      self.buffers[-1].data = packed(np.asarray(value), bits)
    if zero is not None:
      made.quantization = self.schema.QuantizationParametersT()
      made.quantization.scale, made.quantization.zeroPoint = np.float32(scale), np.int64(zero)
      made.quantization.quantizedDimension = axis
    self.tensors.append(made)
    return len(self.tensors) - 1

  def type(self, bits) -> int:
    return getattr(self.schema.TensorType, _TYPES[bits])

  def operator(self, network: Network, node: Node, output: int) -> None:
    made = self.schema.OperatorT()
    sources = [network.tensors[i] for i in node.inputs]
    name, version = OPERATORS[node.op](node, sources, self.batch)
    made.opcodeIndex = self.code(name, version)
    made.inputs, made.outputs = np.int32(self.inputs(node, sources)), np.int32([output])
    kind, fields = options(node, sources)
    if kind:
      made.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
      made.builtinOptions = getattr(self.schema, f'{kind}T')()
      for field, value in fields.items():
        if not hasattr(made.builtinOptions, field):
          raise AttributeError(f'{kind} has no {field}')
        setattr(made.builtinOptions, field, value)
    self.operators.append(made)

  def inputs(self, node: Node, sources: Sequence[Tensor]) -> list[int]:
    before, after = constants(node, sources, self.batch)
    held = lambda values: [self.tensor(value.shape, 8 * value.dtype.itemsize, value, *quantization)
                           for value, quantization in values]
    weights = self.weights(node, sources[0]) if node.op in WEIGHTED else []
    if node.op == 'transpose_conv':
      return [*held(before), weights[0], *node.inputs, *weights[1:]]
    return [*held(before), *node.inputs, *weights, *held(after)]

  def weights(self, node: Node, source: Tensor) -> list[int]:
    """Codes and bias; the bias has the scales of the accumulator, without which XNNPACK does not take the operator."""
    bits, axis = container(node, int2=self.int2), 3 if node.op == 'depthwise' else 0
    per_tensor = one_scale(node)
    scales = node.scales[:1] if per_tensor else node.scales
    codes, zeros = in_file(node), np.zeros(scales.size, np.int64)
    weight = self.tensor(codes.shape, bits, codes, scales, zeros, 0 if per_tensor else axis)
    unit = (np.float64(source.scale) * scales).astype(np.float32)
    wide = 64 if source.bits == 16 else 32
    return [weight, self.tensor(node.bias.shape, wide, node.bias, unit, zeros)]

  def code(self, name: str, version: int) -> int:
    if (name, version) not in self.codes:
      self.codes.append((name, version))
    return self.codes.index((name, version))

  def finish(self, network: Network, inputs, outputs) -> bytes:
    s, graph, made = self.schema, self.schema.SubGraphT(), self.schema.ModelT()
    graph.inputs, graph.outputs = np.arange(len(network.inputs), dtype=np.int32), np.int32(network.outputs)
    graph.tensors, graph.operators, graph.name = self.tensors, self.operators, 'main'
    signature = s.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = 'serving_default', 0
    signature.inputs = self.ends(inputs, graph.inputs)
    signature.outputs = self.ends(outputs, graph.outputs)
    made.version, made.subgraphs, made.buffers, made.signatureDefs = 3, [graph], self.buffers, [signature]
    made.operatorCodes = [self.operator_code(*code) for code in self.codes]
    return flatbuffer.write(made)

  def ends(self, names, indices):
    made = []
    for name, index in zip(names, indices, strict=True):
      self.tensors[index].name = name
      made.append(self.schema.TensorMapT())
      made[-1].name, made[-1].tensorIndex = name, int(index)
    return made

  def operator_code(self, name, version):
    code, number = self.schema.OperatorCodeT(), getattr(self.schema.BuiltinOperator, name)
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
    return code


def in_file(node: Node) -> np.ndarray:
  """The codes in the file's layout: OHWI, 1HWO for depthwise, OI; flipped for a transposed convolution."""
  if node.op == 'transpose_conv':
    return node.codes[::-1, ::-1].transpose(3, 0, 1, 2)
  return node.codes.transpose({'conv': (3, 0, 1, 2), 'depthwise': (2, 0, 1, 3), 'dense': (1, 0)}[node.op])


def packed(value: np.ndarray, bits: int) -> np.ndarray:
  """The bytes of integers of `bits` bits each; below 8 the first code is in the lowest bits.

  >>> packed(np.array([1, -1, 2]), 4), packed(np.array([1, -1, 0, 1, 1]), 2)
  (array([241,   2], dtype=uint8), array([77,  1], dtype=uint8))
  """
  flat = np.ravel(value)
  if bits >= 8:
    return np.frombuffer(flat.astype(f'<i{bits // 8}').tobytes(), np.uint8)
  each = 8 // bits
  flat = np.pad(flat.astype(np.uint8) & (2 ** bits - 1), (0, -flat.size % each)).reshape(-1, each)
  return np.bitwise_or.reduce(flat << np.arange(0, 8, bits, dtype=np.uint8), axis=1)
