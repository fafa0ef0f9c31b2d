"""What a .tflite file holds, against the network: scales, zero points, codes, biases, and nothing else."""
import numpy as np

from effjax.export import flatbuffer, litert
from effjax.export.network import Network, Node, container

OPERATORS = {
    'conv': 'CONV_2D', 'depthwise': 'DEPTHWISE_CONV_2D', 'dense': 'FULLY_CONNECTED', 'add': 'ADD', 'mul': 'MUL',
    'mean': 'MEAN', 'concat': 'CONCATENATION', 'max_pool': 'MAX_POOL_2D', 'average_pool': 'AVERAGE_POOL_2D',
    'reshape': 'RESHAPE', 'transpose': 'TRANSPOSE', 'slice': 'SLICE', 'pad': 'PAD', 'clamp': 'RELU'}
MOVES = frozenset({'reshape', 'transpose', 'slice', 'pad'})  # the converter may drop or merge these


def audit(content: bytes, network: Network) -> list[str]:
  """Problems, one line each; none if the file holds exactly the network.

  Every tensor of the network with its scale and zero point; each kernel with its codes, scales and biases; int8 inputs
  and outputs; no float tensor, no STABLEHLO operator, no QUANTIZE or DEQUANTIZE, no operator that the network has not.
  """
  model = flatbuffer.read(content)
  graph, problems = model.subgraphs[0], []
  names = {(tensor.name or b'').decode(): tensor for tensor in graph.tensors}
  problems += [f'float tensor {name!r}' for name, tensor in names.items() if _is_float(tensor)]
  problems += _ends(graph, network)
  made = {_name(graph, operator.outputs[0]): operator for operator in graph.operators}
  for node in network.nodes:
    problems += _node(model, node, made.get(node.output.name))
  known = {OPERATORS[node.op] for node in network.nodes} | {'RESHAPE', 'RELU6', 'RELU_N1_TO_1', 'PADV2'}
  used = [flatbuffer.operator_name(model, operator) for operator in graph.operators]
  problems += [f'operator {name} is not of the network' for name in used if name not in known]
  return problems


def float_tensors(content: bytes) -> int:
  """How many tensors of the file are floating point."""
  return sum(_is_float(tensor) for graph in flatbuffer.read(content).subgraphs for tensor in graph.tensors)


def _is_float(tensor):
  types = litert.schema().TensorType
  return tensor.type in (types.FLOAT32, types.FLOAT16, types.FLOAT64)


def _name(graph, index):
  return (graph.tensors[index].name or b'').decode()


def _ends(graph, network):
  int8 = litert.schema().TensorType.INT8
  wanted = [*network.inputs, *(network.tensors[i] for i in network.outputs)]
  found = [graph.tensors[i] for i in (*graph.inputs, *graph.outputs)]
  if len(wanted) != len(found):
    return [f'{len(found)} inputs and outputs, wanted {len(wanted)}']
  return [f'input or output {ours.name!r} differs from the network' for ours, tensor in zip(wanted, found)
          if tensor.type != int8 or not flatbuffer.is_same(tensor, ours)]


def _node(model, node: Node, operator) -> list[str]:
  name = node.output.name
  if operator is None:
    return [] if node.op in MOVES else [f'{name!r}: no tensor with its scale {node.output.scale} and zero point '
                                        f'{node.output.zero_point}']
  tensor, kind = model.subgraphs[0].tensors[operator.outputs[0]], flatbuffer.operator_name(model, operator)
  problems = [] if flatbuffer.is_same(tensor, node.output) else [f'{name!r}: scale or zero point differs']
  if node.op in ('conv', 'depthwise', 'dense') and kind != OPERATORS[node.op]:
    problems.append(f'{name!r}: operator {kind}, wanted {OPERATORS[node.op]}')
  return problems + (_weights(model, node, operator) if node.codes is not None else [])


def _weights(model, node, operator):
  graph = model.subgraphs[0]
  weight, name = graph.tensors[operator.inputs[1]], node.output.name
  bias = graph.tensors[operator.inputs[2]] if len(operator.inputs) > 2 and operator.inputs[2] >= 0 else None
  biases = np.zeros_like(node.bias) if bias is None else _integers(model, bias)
  scales, _ = flatbuffer.quantization(weight) or (np.float32([]), None)
  stored = litert.schema().TensorType.INT4 if container(node.bits) == 4 else litert.schema().TensorType.INT8
  checks = {
      'the type of its codes': weight.type == stored,
      'its weight codes': np.array_equal(_integers(model, weight)[:node.codes.size], _transposed(node).ravel()),
      'its weight scales': np.array_equal(np.broadcast_to(scales, node.scales.shape) if scales.size == 1 else scales,
                                          node.scales),
      'its biases': np.array_equal(biases, node.bias)}
  return [f'{name!r}: {what} differ' for what, equal in checks.items() if not equal]


def _integers(model, tensor):
  """A constant tensor's values, flat; two int4 codes to a byte, the low one first."""
  types, data = litert.schema().TensorType, np.asarray(model.buffers[tensor.buffer].data, np.uint8)
  if tensor.type == types.INT4:
    halves = np.stack([data & 15, data >> 4], -1).ravel().astype(np.int8)
    return np.where(halves > 7, halves - 16, halves)
  return data.view({types.INT8: np.int8, types.INT32: np.int32, types.INT64: np.int64}[tensor.type])


def _transposed(node):
  """The codes in the file's layout: OHWI, 1HWO for depthwise, OI."""
  order = {'conv': (3, 0, 1, 2), 'depthwise': (2, 0, 1, 3), 'dense': (1, 0)}[node.op]
  return node.codes.transpose(order)
