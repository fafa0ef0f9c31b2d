import json
import os
import re
import sys

import pytest

from effjax.errors import EffjaxError
from effjax.report.write import free, write


def test_every_file_is_there_and_the_text_refers_to_the_pictures(results, history, tmp_path):
  pytest.importorskip('matplotlib')
  write(tmp_path, results, history)
  text = (tmp_path / 'report.md').read_text()
  named = set(re.findall(r'\]\((.*?)\)', text))
  assert named == {'layers.png', 'operators.png', 'pareto.png', 'trajectory.png'}
  assert {path.name for path in tmp_path.iterdir()} == named | {'report.md', 'report.json'}
  assert text.startswith('# digits, seed 3')
  assert '213 s in all; effjax 0.1.0, jax 0.10.2.' in text


def test_the_json_holds_plain_numbers(results, history, tmp_path):
  write(tmp_path / 'new' / 'run', results, history)
  report = json.loads((tmp_path / 'new' / 'run' / 'report.json').read_text())
  assert report['baseline']['accuracy'] == pytest.approx(.9875)
  assert report['budgets']['flash_bytes'] == {'asked': 8_100, 'reached': 7_000}
  assert report['operators'][0]['probabilities'] == [.1, .7, .2]
  assert report['result']['latency_ms'] == .03456
  assert report['baseline']['latency_ms'] is None
  assert report['seed'] == 3


def test_without_matplotlib_the_report_says_how_to_get_pictures(results, history, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
  write(tmp_path, results, history)
  assert {path.name for path in tmp_path.iterdir()} == {'report.md', 'report.json'}
  assert "pip install -e '.[plots]'" in (tmp_path / 'report.md').read_text()


def test_a_folder_with_another_report_is_left_as_it_was(results, history, tmp_path):
  (tmp_path / 'report.json').write_text('{}')
  with pytest.raises(EffjaxError, match=r"run folder '.*' holds another run \(found report.json\): choose"):
    write(tmp_path, results, history)
  assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [('report.json', '{}')]


def test_what_else_the_run_wrote_stays(results, history, tmp_path):
  (tmp_path / 'model.tflite').write_bytes(b'TFL3')
  write(tmp_path, results, history)
  assert (tmp_path / 'model.tflite').read_bytes() == b'TFL3'


def test_the_json_comes_last_and_nothing_is_half_written(results, history, tmp_path, monkeypatch):
  renamed, replace = [], os.replace

  def full_disk(source, target):
    if target.name == 'report.json':
      raise OSError('no space left')
    renamed.append(target.name)
    replace(source, target)

  monkeypatch.setattr(os, 'replace', full_disk)
  with pytest.raises(OSError, match='no space left'):
    write(tmp_path, results, history)
  assert 'report.md' in renamed
  assert not (tmp_path / 'report.json').exists()


def test_free_takes_a_new_folder_or_an_empty_one_and_makes_none(tmp_path):
  assert not free(tmp_path / 'a' / 'b').exists()
  assert free(tmp_path).is_dir()


def test_free_refuses_a_folder_in_use(tmp_path):
  (tmp_path / 'metrics.jsonl').touch()
  with pytest.raises(EffjaxError, match=r'holds another run \(found metrics.jsonl\): choose another with --out, or '
                     'continue that run with --resume'):
    free(tmp_path)


def test_free_refuses_a_file(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(EffjaxError, match='is a file: choose another folder with --out'):
    free(tmp_path / 'file')
