import json

import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.export import tflite, verify

MIXES = {'int8': 8, 'int4': 4, 'mixed': lambda path: (2, 3, 4, 5, 8)[sum(map(ord, path)) % 5]}


@pytest.mark.parametrize('mix', MIXES)
def test_file_is_the_simulation_code_for_code(ready, module, mix, tmp_path):
  given = ready(module, MIXES[mix])
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
