import numpy as np
import pytest

from effjax.export import flatbuffer, litert, tflite
from effjax.export.audit import audit, float_tensors


@pytest.fixture
def exported(ready, tmp_path):
  def make(some):
    network = ready(some).network()
    tflite(network, tmp_path / 'model.tflite')
    return network, (tmp_path / 'model.tflite').read_bytes()
  return make


def test_every_difference_is_found(exported, some):
  network, content = exported(some)
  assert audit(content, network) == []
  i = next(i for i, node in enumerate(network.nodes) if node.codes is not None)
  node = network.nodes[i]
  name = node.output.name
  changed = {
      'its weight codes': node._replace(codes=np.where(node.codes == 0, 1, -node.codes).astype(np.int8)),
      'its weight scales': node._replace(scales=np.nextafter(node.scales, np.float32(9))),
      'its biases': node._replace(bias=node.bias + 1),
      'scale or zero point': node._replace(output=node.output._replace(scale=node.output.scale * 1.0001)),
  }
  for what, other in changed.items():
    problems = audit(content, network._replace(nodes=(*network.nodes[:i], other, *network.nodes[i + 1:])))
    assert any(problem.startswith(f'{name!r}: {what}') for problem in problems), (what, problems)


def test_other_operators_and_tensors_are_found(exported, some):
  network, content = exported(some)
  model = flatbuffer.read(content)
  graph, types = model.subgraphs[0], litert.schema().TensorType
  graph.tensors[graph.outputs[0]].type = types.FLOAT32
  changed = flatbuffer.write(model)
  assert float_tensors(changed) == 1
  assert f'float tensor {graph.outputs[0]}' in audit(changed, network)
  assert f'{network.tensors[network.outputs[0]].name!r}: type differs' in audit(changed, network)
  fewer = network._replace(nodes=network.nodes[:-1], outputs=(len(network.tensors) - 2,))
  assert any(problem.startswith('operators [') for problem in audit(content, fewer))
  assert 'inputs or outputs are other tensors than those of the network' in audit(content, fewer)
  more = network._replace(nodes=network.nodes * 20)
  assert audit(content, more) == [f'{len(graph.tensors)} tensors, wanted at least {len(more.tensors)}']
  i, node = next((i, n) for i, n in enumerate(network.nodes) if n.inputs and n.inputs[0] > 0)
  moved = node._replace(inputs=(0, *node.inputs[1:]))
  moved = network._replace(nodes=(*network.nodes[:i], moved, *network.nodes[i + 1:]))
  assert f'{node.output.name!r}: it reads other tensors' in audit(content, moved)
