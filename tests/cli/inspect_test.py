import numpy as np
import pytest

from effjax import export
from effjax.cli import main
from effjax.export.network import Network, Node, Tensor


@pytest.fixture
def file(tmp_path):
  """A dense layer and its file."""
  random = np.random.default_rng(0)
  node = Node('dense', (0,), Tensor('logits', (1, 5), .1, 3), '', {}, random.integers(-127, 128, (8, 5)).astype(np.int8),
              random.uniform(.005, .01, 5).astype(np.float32), np.arange(5, dtype=np.int32))
  network = Network((Tensor('input', (1, 8), .05, -4),), (node,), (1,))
  export.tflite(network, tmp_path / 'layer.tflite')
  export.save(network, tmp_path / 'layer.npz')
  return tmp_path / 'layer.tflite'


def test_a_file_and_its_network_are_compared(file, capsys):
  assert main(['verify', str(file)]) == 0
  out = ' '.join(capsys.readouterr().out.split())
  for kernels in ('XNNPACK', 'builtin kernels'):
    assert f'{kernels}: 256 examples, same class 100.00 %, equal output codes 100.00 %, largest difference 0' in out
  assert 'float tensors 0, audit problems 0' in out
  assert f'{file.stat().st_size:,} bytes: codes 40, scales ' in out
  network = export.load(file.with_suffix('.npz'))
  other = network.nodes[0]._replace(bias=network.nodes[0].bias + 900)
  export.save(network._replace(nodes=(other,)), file.with_suffix('.npz'))
  assert main(['verify', str(file)]) == 1
  out = ' '.join(capsys.readouterr().out.split())
  assert 'first difference in logits' in out and "'logits': its biases differ" in out


def test_a_file_without_its_network(file, capsys):
  file.with_suffix('.npz').unlink()
  assert main(['verify', str(file)]) == 2
  assert 'layer.npz is not a saved network (FileNotFoundError' in capsys.readouterr().err


def test_on_a_microcontroller(file, capsys):
  pytest.importorskip('tflite_micro')
  assert main(['verify', '--micro', str(file)]) == 0
  out = ' '.join(capsys.readouterr().out.split())
  assert 'TFLite Micro: 256 examples' in out and 'TFLite Micro: arena ' in out
