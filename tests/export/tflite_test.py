import jax
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.export import flatbuffer, float_tflite, latency_ms, litert, tflite
from effjax.export.tflite import write


def operators(path):
  model = flatbuffer.read(path.read_bytes())
  return [flatbuffer.operator_name(model, operator) for operator in model.subgraphs[0].operators]


def test_file_has_int8_ends_and_our_names(ready, some, tmp_path):
  path, given = tmp_path / 'model.tflite', ready(some)
  network = given.network()
  assert tflite(network, path) == path.stat().st_size
  interpreter = litert.Interpreter(path.read_bytes())
  assert [(d['name'], d['dtype']) for d in interpreter.inputs] == [('input', np.int8)]
  assert [(d['name'], d['dtype']) for d in interpreter.outputs] == [(network.tensors[-1].name, np.int8)]
  assert not {'QUANTIZE', 'DEQUANTIZE'} & set(operators(path))
  assert [p.name for p in tmp_path.iterdir()] == ['model.tflite']


def test_float_file_is_the_function(ready, some, tmp_path):
  path, given = tmp_path / 'float.tflite', ready(some)
  assert float_tflite(given.fn, given.weights, given.x, path) == path.stat().st_size
  interpreter = litert.Interpreter(path.read_bytes())
  got = np.concatenate([interpreter.run(np.asarray(given.x[i:i + 1]))[0] for i in range(4)])
  np.testing.assert_allclose(got, given.fn(given.weights, given.x[:4]), rtol=1e-4, atol=1e-5)
  assert latency_ms(path, runs=3) > 0


def test_the_same_network_gives_the_same_bytes(ready, some, tmp_path):
  network = ready(some).network()
  for name in 'ab':
    tflite(network, tmp_path / name)
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


def test_a_failed_conversion_leaves_the_old_file(tmp_path):
  path = tmp_path / 'model.tflite'
  path.write_bytes(b'old')
  scan = lambda p, x: jax.lax.scan(lambda carry, _: (carry * 2, None), x, length=3)[0]
  with pytest.raises(EffjaxError, match='litert-converter cannot convert the network: .*export flatbuffer'):
    float_tflite(scan, {}, np.ones((1, 8), np.float32), path)
  assert path.read_bytes() == b'old'
  assert [p.name for p in tmp_path.iterdir()] == ['model.tflite']


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'model.tflite'
  path.write_bytes(b'old')

  def full(*args):
    raise OSError('disk full')

  monkeypatch.setattr('os.replace', full)
  with pytest.raises(OSError, match='disk full'):
    write(path, b'new')
  assert path.read_bytes() == b'old'
  assert [p.name for p in tmp_path.iterdir()] == ['model.tflite']
