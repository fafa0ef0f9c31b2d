"""The main job from end to end: what a run leaves, what can be asked of it, and a run that is killed and resumed."""
import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest

from effjax import export
from effjax.cli import main
from effjax.report.schema import CHECKS, KEYS, METRICS, NETWORKS

OPTIONS = ['--steps', '6', '--batch-size', '32', '--every-steps', '2', '--seed', '3']
PHASES = {'baseline': 6, 'search': 6, 'int8_baseline': 1, 'result': 9}
FILES = {'options.json', 'metrics.jsonl', 'report.json', 'report.md', 'model.tflite', 'model.npz', 'baseline.tflite',
         'int8_baseline.tflite', 'int8_baseline.npz', 'trajectory.png', 'layers.png', 'operators.png', 'pareto.png'}
# The command, killed while the search is in its step 5; the checkpoint of step 4 is there.
KILLED = '''
import os, runpy, signal, sys
from effjax import train
fit = train.fit

def dying(step, state, batches, **options):
  def of_step(i):
    if (options['name'], i) == ('search', 5):
      os.kill(os.getpid(), signal.SIGKILL)
    return batches(i)
  return fit(step, state, of_step, **options)

train.fit = dying
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
'''


def command(*argv):
  """Exit code and what is printed."""
  out = io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
    code = main(list(map(str, argv)))
  return code, out.getvalue()


def child(*argv, **environment):
  return subprocess.run([sys.executable, *map(str, argv)], env=os.environ | environment, capture_output=True, text=True,
                        timeout=1200)


@pytest.fixture(scope='module')
def printed(small, tmp_path_factory):
  """A whole run, once for all tests: its folder and what it printed."""
  folder = tmp_path_factory.mktemp('whole') / 'run'
  code, out = command('joint', *OPTIONS, '--out', folder)
  assert code == 0
  return folder, out


@pytest.fixture
def run(printed):
  return printed[0]


@pytest.fixture
def results(run):
  return json.loads((run / 'report.json').read_text())


@pytest.fixture
def copied(run, tmp_path):
  """A copy that may be damaged."""
  return pathlib.Path(shutil.copytree(run, tmp_path / 'copy'))


def test_the_folder_holds_the_file_the_report_and_the_pictures(run):
  assert {path.name for path in run.iterdir()} == FILES | {'checkpoints'}
  assert {path.name for path in (run / 'checkpoints').iterdir()} == set(PHASES)
  assert all(path.read_bytes().startswith(b'\x89PNG') for path in run.glob('*.png'))
  text = (run / 'report.md').read_text()
  assert all(f']({path.name})' in text for path in run.glob('*.png'))
  assert all(label in text for label in [*METRICS.values(), *NETWORKS.values(), *CHECKS.values()])


def test_the_report_is_plain_numbers(results):
  assert set(results) == set(KEYS)
  for network in NETWORKS:
    assert set(results[network]) == set(METRICS)
    assert all(isinstance(value, int | float) and value >= 0 for value in results[network].values())
  assert set(CHECKS) <= set(results['verify'])
  assert (results['seed'], results['data']) == (3, 'digits')
  assert results['seconds'] > 0 and {'effjax', 'jax', 'litert-converter', 'ai-edge-litert'} <= set(results['versions'])
  assert [block['block'] for block in results['operators']] == ['block1', 'block2']
  assert {layer['bits'] for layer in results['layers']} <= {4, 8}


def test_budgets_are_met_and_default_to_shares_of_the_baseline(results):
  shares = {'flash_bytes': .3, 'macs': .4}
  assert set(results['budgets']) == set(shares)
  for name, share in shares.items():
    budget = results['budgets'][name]
    assert budget['asked'] == pytest.approx(share * results['int8_baseline'][name])
    assert budget['reached'] == results['result'][name] <= budget['asked']


def test_the_file_is_the_network(run, results):
  found = results['verify']
  assert found['argmax_agreement'] == 1. and found['max_code_difference'] <= 1 and found['codes_equal'] >= .99
  assert found['float_tensors'] == found['audit_problems'] == 0
  network = export.load(run / 'model.npz')
  weighted = [node for node in network.nodes if node.codes is not None]
  assert results['result']['file_bytes'] == (run / 'model.tflite').stat().st_size
  rounding = export.weight_bytes(network) - results['result']['flash_bytes']  # half a byte for an odd number of codes
  assert 0 <= rounding <= .5 * len(weighted)
  assert results['result']['macs'] == sum(map(export.macs, weighted))


def test_nothing_is_left_of_an_operator_that_was_not_chosen(run, results):
  names = ' '.join(tensor.name for tensor in export.load(run / 'model.npz').tensors)
  layers = ' '.join(layer['name'] for layer in results['layers'])
  for block in results['operators']:
    for i, name in enumerate(block['names']):
      used = i == block['chosen'] and name != 'skip'
      assert [f'{block["block"]}/{name}/' in text for text in (names, layers)] == [used, used]


def test_metrics_of_every_phase(run):
  lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
  assert {line['name']: line['step'] for line in lines} == PHASES
  assert all({'loss', 'accuracy'} <= set(line) for line in lines)
  assert {'cost/flash_bytes', 'cost/macs', 'multiplier/macs'} <= set(next(x for x in lines if x['name'] == 'search'))


def test_what_is_printed(printed):
  folder, out = printed
  for text in ('float baseline', 'int8 baseline', 'result', 'budget', 'the file', 'float tensors'):
    assert text in out
  assert out.endswith(f'{folder}: model.tflite, report.md, report.json\n')


def test_verify_and_profile(run, results):
  code, out = command('verify', run)
  assert code == 0
  for name in ('XNNPACK', 'builtin kernels'):
    assert f'{name}: 360 examples, same class 100.00 %, equal output codes 100.00 %' in ' '.join(out.split())
  code, out = command('profile', run)
  assert code == 0
  size = export.weight_bytes(export.load(run / 'model.npz'))
  assert re.search(rf'all .* {results["result"]["macs"]:,.0f} .* {size:,} ', out)


def test_python_m_effjax_is_the_same(run):
  for name in ('verify', 'profile'):
    found = child('-m', 'effjax', name, run)
    assert (found.returncode, found.stdout) == command(name, run)


def test_a_file_that_is_not_its_network_is_told(copied, capsys):
  file, network = copied / 'model.tflite', export.load(copied / 'model.npz')
  content = file.read_bytes()
  at = content.index(network.nodes[-1].bias.astype('<i4').tobytes())
  file.write_bytes(content[:at + 1] + bytes([content[at + 1] ^ 0x40]) + content[at + 2:])
  assert main(['verify', str(copied)]) == 1
  shutil.copy(copied / 'int8_baseline.tflite', file)
  assert main(['verify', str(copied)]) == 1
  capsys.readouterr()
  file.write_bytes(content[:len(content) // 2])
  assert main(['verify', str(copied)]) == 2
  assert re.fullmatch(r'effjax: the file is torn, or no .tflite file \(.*\): export it again\n', capsys.readouterr().err)


def test_a_corrupt_checkpoint(copied, capsys):
  (copied / 'report.json').unlink()
  newest = copied / 'checkpoints' / 'search' / '6'
  for path in newest.rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[:5])
  before = {path: path.read_bytes() for path in copied.rglob('*') if path.is_file()}
  assert main(['joint', '--resume', str(copied)]) == 2
  assert re.search(r'effjax: checkpoint .*search.6 cannot be read \(.*\): remove that folder to resume from the one '
                   'before it, or its parent to start again\n$', capsys.readouterr().err)
  assert {path: path.read_bytes() for path in copied.rglob('*') if path.is_file()} == before


def test_checkpoints_of_other_options(copied, capsys):
  (copied / 'report.json').unlink()
  options = json.loads((copied / 'options.json').read_text())
  (copied / 'options.json').write_text(json.dumps(options | {'where': '(block1|head).*kernel'}))
  assert main(['joint', '--resume', str(copied)]) == 2
  assert re.search(r'effjax: checkpoint .*search.6 is of another model or other options: it has .* at .*, wanted ',
                   capsys.readouterr().err)


def test_a_run_killed_in_the_search_and_resumed_ends_bitwise_the_same(small, run, tmp_path):
  """Three processes: the whole run, one that dies in the middle of a step, one that goes on from the checkpoint.

  That the files agree to the last bit also says that the same seed gives the same file in every process.
  """
  folder = tmp_path / 'run'
  killed = child('-c', KILLED, small, 'joint', *OPTIONS, '--out', folder)
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  assert sorted(path.name for path in (folder / 'checkpoints' / 'search').iterdir()) == ['2', '4']
  assert not (folder / 'model.tflite').exists()
  resumed = child(small, 'joint', '--resume', folder)
  assert resumed.returncode == 0, resumed.stderr
  assert untimed(folder / 'report.json') == untimed(run / 'report.json')
  for name in FILES - {'report.json', 'report.md'}:
    assert (folder / name).read_bytes() == (run / name).read_bytes(), name


def untimed(path):
  """A report without what a clock measured."""
  drop = lambda fields: {name: value for name, value in fields.items() if name not in ('seconds', 'latency_ms')}
  return json.loads(path.read_text(), object_hook=drop)
