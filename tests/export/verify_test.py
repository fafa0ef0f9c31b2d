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
  assert report[:5] == (1., 0, 1., 0, ())
  assert all(row.xnnpack_equal == 1 for row in report.tensors)
  assert {node.output.name for node in network.nodes if node.codes is not None} <= {row.name for row in report.tensors}
  assert report.builtin.codes_equal > .4
  assert report.builtin.max_code_difference <= 3
  assert report.examples == len(given.x)


def test_report_is_plain_data(ready, some, tmp_path):
  network = ready(some).network()
  tflite(network, tmp_path / 'model.tflite')
  report = verify(tmp_path / 'model.tflite', network, np.zeros((2, 12, 12, 3), np.float32))
  assert json.loads(json.dumps(report.to_dict()))['builtin']['argmax_agreement'] == report.builtin.argmax_agreement


def test_missing_file_and_other_file_are_named(ready, tmp_path):
  (tmp_path / 'other').write_bytes(b'hello world')
  with pytest.raises(EffjaxError, match='absent cannot be read'):
    verify(tmp_path / 'absent', None, ())
  with pytest.raises(EffjaxError, match='other is not a .tflite file'):
    verify(tmp_path / 'other', None, ())
