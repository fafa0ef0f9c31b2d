import numpy as np
import pytest

from effjax.export import flatbuffer, litert, tflite
from effjax.export.audit import audit, float_tensors
from effjax.export.lower import lower


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
      'the type of its codes': node._replace(bits=4),
      'scale or zero point': node._replace(output=node.output._replace(scale=node.output.scale * 1.0001)),
  }
  for what, other in changed.items():
    problems = audit(content, network._replace(nodes=(*network.nodes[:i], other, *network.nodes[i + 1:])))
    assert any(problem.startswith(f'{name!r}: {what}') for problem in problems), (what, problems)


def test_float_ends_and_requantization_are_found(ready, some):
  network = ready(some).network()
  content = litert.convert(lower(network), 1, 1, quantized=True)
  model = flatbuffer.read(content)
  flatbuffer.rename(model, network)
  content = flatbuffer.write(model)
  problems = audit(content, network)
  assert float_tensors(content) == 2
  assert 'operator QUANTIZE is not of the network' in problems
  assert 'operator DEQUANTIZE is not of the network' in problems
  assert any(problem.startswith('input or output') for problem in problems)
  assert sum(problem.startswith('float tensor') for problem in problems) >= 1
