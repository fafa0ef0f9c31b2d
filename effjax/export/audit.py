"""What a .tflite file holds, against the network: operators, scales, zero points, codes, biases, and nothing else."""
import numpy as np

from effjax.export import flatbuffer, tensors
from effjax.export.network import WEIGHTED, Network, Node, Tensor
from effjax.export.operator_options import OPERATORS
from effjax.export.write import in_file


def audit(content: bytes, network: Network) -> list[str]:
  """Problems, one line each; none if the file holds exactly the network.

  Every tensor of the network with its type, shape, scale and zero point; each kernel with its codes, scales and biases;
  each operator, in its order, between the tensors that it is between; integer inputs and outputs; no float tensor.
  """
  model = flatbuffer.read(content)
  graph, problems = model.subgraphs[0], [f'float tensor {i}' for i in flatbuffer.floats(model)]
  if len(graph.tensors) < len(network.tensors):
    return [*problems, f'{len(graph.tensors)} tensors, wanted at least {len(network.tensors)}']
  ends = [*range(len(network.inputs))], [*network.outputs]
  if ([int(i) for i in graph.inputs], [int(i) for i in graph.outputs]) != ends:
    problems.append('inputs or outputs are other tensors than those of the network')
  for i, ours in enumerate(network.tensors):
    problems += [f'{ours.name!r}: {what} differs' for what in _tensor(model, graph.tensors[i], ours)]
  return problems + _operators(model, network)


def float_tensors(content: bytes) -> int:
  """How many tensors of the file are floating point."""
  return len(flatbuffer.floats(flatbuffer.read(content)))


def _tensor(model, tensor, ours: Tensor) -> list[str]:
  found = flatbuffer.quantization(tensor)
  wanted = None if ours.bits == 32 else (np.float32([ours.scale]), np.int64([ours.zero_point]))
  same = found == wanted if found is None or wanted is None else all(map(np.array_equal, found, wanted))
  checks = {'type': tensors.bits(tensor) == ours.bits, 'shape': tuple(tensor.shape[1:]) == ours.shape[1:],
            'scale or zero point': same}
  return [what for what, equal in checks.items() if not equal]


def _operators(model, network) -> list[str]:
  graph, first = model.subgraphs[0], len(network.inputs)
  nodes = [(first + i, node) for i, node in enumerate(network.nodes)]
  differs = lambda i, node: not np.array_equal(tensors.codes(model, graph.tensors[i]).ravel(), node.codes.ravel())
  problems = [f'{node.output.name!r}: its constant differs' for i, node in nodes
              if node.op == 'constant' and differs(i, node)]
  nodes = [(i, node) for i, node in nodes if node.op != 'constant']
  found = [(flatbuffer.operator_name(model, o), int(o.outputs[0]), o) for o in graph.operators]
  sources = lambda node: [network.tensors[i] for i in node.inputs]
  wanted = [(OPERATORS[node.op](node, sources(node), 1)[0], i) for i, node in nodes]
  if [each[:2] for each in found] != wanted:
    return [*problems, f'operators {[each[0] for each in found]}, wanted {[name for name, _ in wanted]}']
  for (_, node), (_, _, operator) in zip(nodes, found, strict=True):
    if [i for i in operator.inputs if i < len(network.tensors)] != [*node.inputs]:
      problems.append(f'{node.output.name!r}: it reads other tensors')
    problems += _weights(model, node, operator) if node.op in WEIGHTED else []
  return problems


def _weights(model, node: Node, operator) -> list[str]:
  graph, name = model.subgraphs[0], node.output.name
  weight, bias = (graph.tensors[operator.inputs[i]] for i in ((1, 3) if node.op == 'transpose_conv' else (1, 2)))
  scales, zeros = flatbuffer.quantization(weight) or (np.float32([]), np.int64([1]))
  same_size = scales.size in (1, node.scales.size)
  checks = {
      'its weight codes': np.array_equal(tensors.codes(model, weight).ravel(), in_file(node).ravel()),
      'its weight scales': same_size and np.array_equal(np.broadcast_to(scales, node.scales.shape), node.scales),
      'its weight zero points': not zeros.any(),
      'its biases': np.array_equal(tensors.codes(model, bias), node.bias)}
  return [f'{name!r}: {what} differ' for what, equal in checks.items() if not equal]

