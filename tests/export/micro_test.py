"""TFLite Micro against LiteRT's builtin kernels; without the extra, the errors alone."""
import importlib.util
import sys

import numpy as np
import pytest

from effjax.cost import peak_ram
from effjax.errors import EffjaxError
from effjax.export import micro_process, write
from effjax.export.micro import Micro, arena_bytes, micro
from effjax.export.network import Network, Node, Tensor
from effjax.export.verify import codes_of, run
from effjax.graph import profile

needs_micro = pytest.mark.skipif(importlib.util.find_spec('tflite_micro') is None, reason="needs effjax's extra micro")


def one(op, **settings):
  tensor = Tensor('x', (1, 4), .5, 0)
  return write.model(Network((tensor,), (Node(op, (0,), tensor._replace(name='y'), '', settings),), (1,)))


@needs_micro
def test_outputs_and_arena(ready, some):
  given = ready(some)
  network = given.network()
  content, codes = write.model(network), codes_of(network, (given.x,))
  found = micro(content, codes)
  for got, wanted in zip(found.outputs, run(content, codes, xnnpack=False), strict=True):
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    difference = np.abs(got.astype(int) - wanted)
    assert difference.max() <= 1 and (difference == 0).mean() > .95  # vectors of LiteRT's round some ties otherwise
  ram = float(peak_ram(profile(given.fn, given.weights, given.x[:1]), {}))
  assert found.activation_bytes == ram < found.arena_bytes < ram + 500 * len(network.nodes)


@needs_micro
def test_kernels_of_16_bits():
  x, y = (Tensor(name, (1, 50), scale, 0, 16) for name, scale in (('x', 1e-3), ('y', 2. ** -15)))
  content = write.model(Network((x,), (Node('logistic', (0,), y, '', {}),), (1,)))
  codes = [np.random.default_rng(0).integers(-2 ** 15, 2 ** 15, (3, 50)).astype(np.int16)]
  np.testing.assert_array_equal(micro(content, codes).outputs[0], run(content, codes, xnnpack=False)[0])


@needs_micro
def test_several_inputs_and_outputs():
  a, b = (Tensor(name, (1, 2), .5, 0) for name in 'ab')
  moved = [Node('reshape', (i,), Tensor(f'r{i}', (1, 1, 2), .5, 0), '', {'shape': (1, 2)}) for i in (1, 0)]
  content = write.model(Network((a, b), tuple(moved), (2, 3)))
  codes = [np.int8([[1, 2], [3, 4]]), np.int8([[5, 6], [7, 8]])]
  outputs = micro(content, codes).outputs
  np.testing.assert_array_equal(outputs, [codes[1][:, None], codes[0][:, None]])


@needs_micro
def test_what_it_cannot_run_is_named_in_its_words():
  with pytest.raises(EffjaxError, match="TFLite Micro cannot run the file: Didn't find op for builtin opcode 'GELU'"):
    micro(one('gelu', approximate=True), [np.zeros((1, 4), np.int8)])
  with pytest.raises(EffjaxError, match='TFLite Micro cannot run the file: ValueError: Cannot set tensor: Dimension'):
    micro(one('reshape', shape=(4,)), [np.zeros((1, 3), np.int8)])


def test_missing_extra_is_named(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(EffjaxError, match=r"export to microcontrollers needs tflite-micro, .*'effjax\[micro\]'"):
    micro(b'', [])


@pytest.fixture
def child(monkeypatch, tmp_path):
  """`child(text)`: the process runs this instead."""
  def use(text):
    (tmp_path / 'process.py').write_text(text)
    monkeypatch.setattr(micro_process, '__file__', str(tmp_path / 'process.py'))
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: sys)
  return use


def test_a_crash_is_an_error(child):
  child('import os, sys; sys.stderr.write("no\\n  memory"); sys.stderr.flush(); os.abort()')
  with pytest.raises(EffjaxError, match=r'TFLite Micro cannot run the file \(signal 6\): no memory'):
    micro(b'', [np.zeros((1, 1), np.int8)])


def test_the_process_is_given_the_file_and_the_inputs(child):
  child('import sys, numpy as np\nhere = sys.argv[1]\nassert open(here + "/model.tflite", "rb").read() == b"file"\n'
        'x = np.load(here + "/inputs.npz")\nnp.savez(here + "/outputs.npz", x["arr_0"] + 1)\n'
        'sys.stderr.write("Arena allocation total 12 bytes\\nArena allocation head 5 bytes")')
  assert micro(b'file', [np.int8([[1]])]) == Micro([np.int8([[2]])], 12, 5)


def test_a_report_without_an_arena_is_named():
  with pytest.raises(EffjaxError, match="TFLite Micro reported no arena, but 'nothing'"):
    arena_bytes('nothing')
