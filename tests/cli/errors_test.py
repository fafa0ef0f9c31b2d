"""A user's mistake is one line and exit code 2, found before anything is trained, made or overwritten."""
import importlib.metadata
import json
import re

import pytest

from effjax.cli import main
from effjax.cli.joint import Options
from effjax.export import litert

pytestmark = pytest.mark.usefixtures('small', '_nothing_is_trained')

MODELS = '''
import flax.linen as nn

class Narrow(nn.Module):
  num_classes: int
  @nn.compact
  def __call__(self, x, train):
    return nn.Dense(self.num_classes - 3)(x.reshape(len(x), -1))

class Named(nn.Module):
  num_classes: int
  @nn.compact
  def __call__(self, x, train):
    return {'logits': nn.Dense(self.num_classes)(x.reshape(len(x), -1))}

class OneArgument(nn.Module):
  num_classes: int
  @nn.compact
  def __call__(self, x):
    return nn.Dense(self.num_classes)(x.reshape(len(x), -1))
'''
BROKEN = r'called as Class\(num_classes\) and then \(x, train\)'
OPTIONS = {
    'an infeasible budget of bytes': (
        '--flash 10', r"budget 'flash_bytes' of 10 cannot be met: the smallest reachable value is \d+; ask for that"),
    'an infeasible budget of operations': (
        '--macs 99', r"budget 'macs' of 99 cannot be met: the smallest reachable value is \d+; ask for that"),
    'a pattern that matches nothing': (
        '--where .*kernels', r"pattern '\.\*kernels' matches none of \d+ leaves: nearest are \[.*kernel.*\]; a pattern "
        'must match the whole path'),
    'a pattern that is none': ('--where [', r"pattern '\[' is not a regular expression"),
    'a pattern of what is no kernel': ('--where .*(kernel|bias)', 'bias.*feed no convolution or product'),
    'more devices than there are': (
        '--devices 9 --parallel mesh', 'joint: --devices 9, this machine has 4: on CPU set '
        'XLA_FLAGS=--xla_force_host_platform_device_count=9'),
    'several devices and nothing to use them': (
        '--devices 2', "'jit' runs on one device, got 2: use 'mesh' or 'pmap'"),
    'a batch that does not divide': (
        '--devices 4 --parallel pmap --batch-size 30', 'a batch of 30 examples does not divide over 4 devices'),
    'a batch larger than the set': (
        '--batch-size 5000', "batch_size: wants 1 to 1437, the examples in 'digits/train', got 5000: choose a smaller"),
    'a held-out batch larger than its set': (
        '--batch-size 200 --bilevel first', "batch_size: wants 1 to 180, the examples in 'digits/validation', got 200"),
    'a model that is not there': (
        '--model nosuch:Net', r"joint: --model 'nosuch:Net' cannot be imported \(No module named 'nosuch'\): give "
        'package.module:Class, ' + BROKEN),
    'a module without that class': ('--model models:Net', r"--model 'models:Net' cannot be imported .*'Net'"),
    'a model without its class': ('--model models', r"--model 'models' cannot be imported"),
    'a model called otherwise': ('--model models:OneArgument', "--model 'models:OneArgument' .*" + BROKEN),
    'a model that is none': ('--model math:sqrt', "--model 'math:sqrt' .*" + BROKEN),
    'a model of other classes': (
        '--model models:Narrow', r"model: for one image of 'digits/train' it gives \(1, 7\), wanted logits of shape "
        r'\(1, 10\): end it in a dense layer of 10 features'),
    'a model that gives no logits': (
        '--model models:Named', r"model: for one image of 'digits/train' it gives \{'logits': \(1, 10\)\}, "
        'wanted logits'),
}


@pytest.fixture
def _nothing_is_trained(monkeypatch):
  monkeypatch.setattr('effjax.cli.joint.run_phase', lambda *_, **__: pytest.fail('training began'))


@pytest.fixture
def fails(capsys):
  """Runs the command; the one line that it fails with."""
  def run(*argv):
    capsys.readouterr()
    assert main(list(map(str, argv))) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith('effjax: ') and err.count('\n') == 1 and err.endswith('\n')
    return err

  return run


def contents(folder):
  return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def run_folder(folder, **changes):
  """What a run that was killed early leaves."""
  folder.mkdir()
  (folder / 'options.json').write_text(json.dumps(Options(steps=2, batch_size=32)._asdict() | changes))
  return folder


@pytest.mark.parametrize('case', OPTIONS)
def test_options(case, fails, tmp_path, monkeypatch):
  (tmp_path / 'models.py').write_text(MODELS)
  monkeypatch.syspath_prepend(tmp_path)
  options, text = OPTIONS[case]
  assert re.search(text, fails('joint', '--out', tmp_path / 'run', *options.split()))
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('options', ['--flash 0', '--flash -5', '--flash nan', '--flash inf', '--macs 0', '--macs few',
                                     '--seed -1', '--steps 0', '--batch-size 0', '--devices 0', '--bilevel third'])
def test_numbers_out_of_range(options, tmp_path, capsys):
  with pytest.raises(SystemExit) as error:
    main(['joint', '--out', str(tmp_path / 'run'), *options.split()])
  name, value = options.split()
  assert error.value.code == 2
  assert re.search(f'argument {name}: .*{value}', capsys.readouterr().err)
  assert not (tmp_path / 'run').exists()


def test_the_smallest_value_of_a_budget_is_one_that_may_be_asked_for(fails, tmp_path):
  ask = lambda flash: fails('joint', '--out', tmp_path / 'run', '--flash', flash, '--macs', 99)
  smallest = re.search(r"'flash_bytes' .* value is (\d+)", ask(10))[1]
  assert "'macs'" in ask(smallest)


def test_an_unknown_data_set(fails, tmp_path):
  error = fails('joint', '--out', tmp_path / 'run', '--data', 'cifra10')
  assert re.search(r"data set 'cifra10' is unknown: neither digits, nor a name of TensorFlow Datasets \(nearest are "
                   r"\[.*'cifar10'", error)
  assert not (tmp_path / 'run').exists()


def test_a_data_set_neither_prepared_nor_downloadable(fails, tmp_path, monkeypatch):
  import requests

  def offline(*args, **kwargs):
    raise requests.ConnectionError('offline')

  monkeypatch.setattr(requests, 'head', offline)
  error = fails('joint', '--out', tmp_path / 'run', '--data', 'mnist', '--data-dir', tmp_path / 'sets')
  assert re.search(r"data set 'mnist' is not prepared in .*sets.* and cannot be made there \(.*\): pass the folder "
                   'that holds a prepared copy', error)
  assert not (tmp_path / 'run').exists()


def test_a_folder_that_holds_another_run(fails, tmp_path):
  folder = run_folder(tmp_path / 'run')
  before = contents(folder)
  assert re.search(r"run folder '.*run' holds another run \(found options.json\): choose another with --out, or "
                   'continue that run with --resume', fails('joint', '--out', folder))
  assert contents(folder) == before
  assert re.search("run folder '.*options.json' is a file: choose another folder with --out",
                   fails('joint', '--out', folder / 'options.json'))
  assert contents(folder) == before


@pytest.mark.parametrize('package', ['litert-converter', 'ai-edge-litert'])
def test_the_export_extra_missing_or_too_old(package, fails, tmp_path, monkeypatch):
  version = importlib.metadata.version

  def found(answer):
    def ask(name):
      if name != package:
        return version(name)
      return answer or version('nosuch-' + name)
    return ask

  litert.schema.cache_clear()
  monkeypatch.setattr(importlib.metadata, 'version', found(None))
  error = fails('joint', '--out', tmp_path / 'run')
  assert re.search(rf"export needs {package}, which is not installed \(.*\): pip install 'effjax\[export\]'", error)
  monkeypatch.setattr(importlib.metadata, 'version', found('0.1.0'))
  error = fails('joint', '--out', tmp_path / 'run')
  assert re.search(rf"export was tried with {package} .* to below .*, got 0.1.0: pip install 'effjax\[export\]'", error)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('command', [['joint', '--resume'], ['verify'], ['profile']])
@pytest.mark.parametrize('content', [None, '', '{"data": "digits", "colour": 3}'])
def test_a_folder_without_a_run(command, content, fails, tmp_path):
  if content is not None:
    (tmp_path / 'options.json').write_text(content)
  before = contents(tmp_path)
  assert re.search(r'holds no run that can be read \(.*\): give the folder that this command wrote',
                   fails(*command, tmp_path))
  assert contents(tmp_path) == before


@pytest.mark.parametrize('command', ['verify', 'profile'])
def test_a_run_that_has_written_no_file_yet(command, fails, tmp_path):
  folder = run_folder(tmp_path / 'run')
  assert re.search(r'model.npz is not a saved network \(FileNotFoundError: .*\)', fails(command, folder))
  (folder / 'model.npz').write_bytes(b'PK\x03\x04 torn')
  assert re.search('model.npz is not a saved network', fails(command, folder))


def test_a_finished_run_cannot_be_resumed(fails, tmp_path):
  folder = run_folder(tmp_path / 'run')
  (folder / 'report.json').write_text('{}')
  before = contents(folder)
  assert re.search("run folder '.*run' is finished", fails('joint', '--resume', folder))
  assert contents(folder) == before


def test_a_resumed_run_keeps_its_options(fails, tmp_path):
  folder = tmp_path / 'run'
  folder.mkdir()
  (folder / 'options.json').write_text(json.dumps(Options(seed=1)._asdict()))
  error = fails('joint', '--resume', folder, '--seed', '2', '--macs', '9', '--out', tmp_path / 'other')
  assert re.search(r'joint: --resume goes on with the options of the run, got --seed 2 \(the run has 1\), --macs 9.0 '
                   r'\(the run has None\), --out .*other \(the run has .*run\): leave them out, or start another run',
                   error)
