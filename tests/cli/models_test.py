"""`effjax models`: names, counts, papers; and docs/models.md is what it prints."""
import json
import pathlib
import re

import pytest

from effjax import models
from effjax.cli import main

DOCUMENT = pathlib.Path(__file__).parents[2] / 'docs' / 'models.md'


@pytest.fixture
def run(capsys):
  """(exit code, stdout, stderr) of `effjax models`."""
  def command(*argv):
    capsys.readouterr()
    code = main(['models', *argv])
    return code, *capsys.readouterr()
  return command


def rows(markdown):
  return [[cell.strip() for cell in line.strip('|').split('|')] for line in markdown.splitlines() if line.startswith('| ')]


def test_a_network_as_plain_data(run):
  code, out, err = run('mobilenet_v2_0.35', '--format', 'json')
  found, = json.loads(out)
  assert (code, err) == (0, '')
  assert found.pop('float32_bytes') > 4 * (1_677_128 - 14_080)  # without BatchNorm, which folds
  assert found.pop('int8_bytes') > 1_677_128 - 14_080
  assert found == {'name': 'mobilenet_v2_0.35', 'source': 'MobileNetV2 arXiv:1801.04381 [10]', 'input': [224, 224, 3],
                   'parameters': 1_677_128, 'macs': 59_285_808, 'stated': models.NETWORKS['mobilenet_v2_0.35'].paper}


def test_table_and_markdown_have_the_same_cells(run):
  code, out, err = run('mobilenet_v2_*35')
  table = [[cell.strip() for cell in re.split('[│┃]', line)[1:-1]] for line in out.splitlines() if line.startswith(('│', '┃'))]
  assert (code, err) == (0, '')
  assert table[0] == ['network', 'paper [survey]', 'input', 'parameters', 'multiply-accumulates', 'the paper counts',
                      'float32 bytes', 'int8 bytes']
  assert [row[:5] for row in table[1:]] == [
      ['mobilenet_v2_0.35', 'MobileNetV2 arXiv:1801.04381 [10]', '224x224x3', '1,677,128', '59,285,808']]
  assert rows(run('mobilenet_v2_*35', '--format', 'markdown')[1]) == table


def test_a_name_that_is_not_there(run):
  code, out, err = run('mobilenet_v2', 'mobilenetv2')
  assert (code, out) == (2, '') and err.count('\n') == 1
  assert re.match(r"effjax: models: no network is called 'mobilenetv2': nearest are \['mobilenet_v2.*\]; `effjax models`", err)


def test_the_document_has_every_network():
  """With paper and stated counts; what is counted is compared below."""
  head, *body = rows(DOCUMENT.read_text())
  assert head[0] == 'network' and [row[0] for row in body] == list(models.NETWORKS), REMEDY
  assert [row[5] for row in body] == [variant.paper for variant in models.NETWORKS.values()], REMEDY
  assert all(re.fullmatch(r'[^:]+?( arXiv:\d+\.\d+)?( \[\d+\])?', row[1]) for row in body)


@pytest.mark.slow
def test_the_document_is_what_the_command_prints(run):
  assert DOCUMENT.read_text() == run('--format', 'markdown')[1], REMEDY


REMEDY = 'run: effjax models --format markdown > docs/models.md'
