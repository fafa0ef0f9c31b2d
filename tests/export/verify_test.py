import json

import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.export import tflite, verify

MIXES = {'int8': 8, 'int4': 4, 'mixed': lambda path: (2, 3, 4, 5, 8)[sum(map(ord, path)) % 5]}


@pytest.mark.parametrize('mix', MIXES)
def test_file_is_the_simulation_code_for_code(ready, some, mix, tmp_path):
  given = ready(some, MIXES[mix])
  network = given.network()
  tflite(network, tmp_path / 'model.tflite')
  report = verify(tmp_path / 'model.tflite', network, given.x)
  assert report.same, [row for row in report.tensors if min(row.xnnpack.equal, row.builtin.equal) < 1]
  assert report.audit_problems == () and report.float_tensors == 0
  assert [row.name for row in report.tensors] == [node.output.name for node in network.nodes if node.op != 'constant']
  assert report.examples == len(given.x)


def test_report_is_plain_data(ready, some, tmp_path):
  network = ready(some).network()
  tflite(network, tmp_path / 'model.tflite')
  report = verify(tmp_path / 'model.tflite', network, np.zeros((2, 12, 12, 3), np.float32))
  assert json.loads(json.dumps(report.to_dict()))['builtin']['argmax_agreement'] == report.builtin.argmax_agreement
  assert report.to_dict()['same'] and report.to_dict()['micro'] is None


def test_missing_file_and_other_file_are_named(ready, tmp_path):
  (tmp_path / 'other').write_bytes(b'hello world')
  with pytest.raises(EffjaxError, match='absent cannot be read'):
    verify(tmp_path / 'absent', None, ())
  with pytest.raises(EffjaxError, match='other is not a .tflite file'):
    verify(tmp_path / 'other', None, ())


def test_another_networks_file_differs(ready, nets, tmp_path):
  first, second = (ready(nets[i]).network() for i in (1, 8))
  tflite(first, tmp_path / 'model.tflite')
  report = verify(tmp_path / 'model.tflite', second, np.zeros((2, 12, 12, 3), np.float32))
  assert not report.same and report.audit_problems
  assert min(row.xnnpack.equal for row in report.tensors) == 0
  changed = first.nodes[2]._replace(bias=first.nodes[2].bias + 2000)
  network = first._replace(nodes=(*first.nodes[:2], changed, *first.nodes[3:]))
  report = verify(tmp_path / 'model.tflite', network, np.zeros((2, 12, 12, 3), np.float32))
  assert not report.same and report.xnnpack.first_difference == report.builtin.first_difference == changed.output.name
  with pytest.raises(EffjaxError, match='LiteRT cannot run the file: .*Dimension mismatch'):
    verify(tmp_path / 'model.tflite', ready(nets[1], size=8).network(), np.zeros((2, 8, 8, 3), np.float32))


def test_on_microcontrollers(ready, nets, tmp_path):
  pytest.importorskip('tflite_micro')
  given = ready(nets[1])
  network = given.network()
  tflite(network, tmp_path / 'model.tflite')
  report = verify(tmp_path / 'model.tflite', network, given.x[:8], micro=True)
  assert report.micro.agreement.max_code_difference <= 1 and report.micro.agreement.codes_equal > .9
  assert report.micro.arena_bytes > report.micro.activation_bytes > 12 * 12 * 3
  assert report.to_dict()['micro']['arena_bytes'] == report.micro.arena_bytes


def test_a_torn_file_is_named(ready, nets, tmp_path):
  network = ready(nets[1]).network()
  tflite(network, tmp_path / 'model.tflite')
  (tmp_path / 'torn').write_bytes((tmp_path / 'model.tflite').read_bytes()[:900])
  with pytest.raises(EffjaxError, match=r'the file is torn, or no .tflite file \(.*\): export it again'):
    verify(tmp_path / 'torn', network, np.zeros((2, 12, 12, 3), np.float32))
