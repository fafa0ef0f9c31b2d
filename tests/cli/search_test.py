"""`effjax search` from end to end on a space of a user's own, on several devices, killed and resumed; its errors."""
import contextlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import search
from effjax.cli import main
from effjax.cli import search as job
from effjax.cli.phases import setting_of
from effjax.search import encoding

HERE = pathlib.Path(__file__).parent
OPTIONS = ['--space', 'tiny:Tiny', '--steps', '12', '--retrain-steps', '4', '--batch-size', '32', '--every-steps', '4',
           '--decision-rate', '.1', '--seed', '3']
KILLED = '''
import os, signal, sys
from effjax import train
from effjax.cli import main
fit = train.fit

def dying(step, state, batches, **options):
  def of_step(i):
    if (options['name'], i) == ('search', 6):
      os.kill(os.getpid(), signal.SIGKILL)
    return batches(i)
  return fit(step, state, of_step, **options)

train.fit = dying
main(sys.argv[1:])
'''


@pytest.fixture(autouse=True, scope='module')
def _path():
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(HERE)
    yield


def command(*argv):
  out = io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
    code = main(list(map(str, argv)))
  return code, out.getvalue()


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp('search') / 'run'
  code, out = command('search', *OPTIONS, '--random', '1', '--out', folder)
  assert code == 0 and out.endswith(f'{folder}: report.md, report.json\n') and 'second/choice' in out
  return folder


def results(folder):
  return json.loads((folder / 'report.json').read_text())


def test_the_report_holds_what_each_step_lost(run):
  found = results(run)
  assert list(found['accuracy']) == ['soft', 'inherited', 'retrained'] and len(found['random']) == 1
  assert all(0 <= x <= 1 for x in [*found['accuracy'].values(), *found['random'], found['distance']])
  assert list(found['architecture']) == ['first/choice', 'second/choice']
  history = found['history']
  assert history['step'] == [4, 8, 12] and len(history['eigenvalue']) == 3
  last = {path: np.array(p) for path, p in history['probabilities'][-1].items()}
  for block in found['operators']:
    np.testing.assert_allclose(block['probabilities'], last[block['path']], rtol=1e-6)
    assert block['names'][block['chosen']] == found['architecture'][block['path']]
  distances = [(1 - p.max()) * 3 / 2 for p in last.values()]
  assert found['distance'] == pytest.approx(np.mean(distances), rel=1e-5)


def test_files_and_text(run):
  pytest.importorskip('matplotlib')
  pictures = {path.name for path in run.glob('*.png')}
  assert pictures == {'operators.png', 'probabilities.png', 'trajectory.png'}
  text = (run / 'report.md').read_text()
  assert all(f']({name})' in text for name in pictures) and 'random architecture trained alike' in text


def test_the_costs_are_those_of_the_architecture(run):
  from tiny import Tiny
  found = results(run)
  net = search.Derived(Tiny(10), found['architecture'])
  params = jax.eval_shape(lambda key: net.init(key, jnp.zeros((1, 8, 8, 1)), False), jax.random.key(0))['params']
  assert found['params'] == sum(x.size for x in jax.tree.leaves(params))
  kernels = {'k1': 4 * 4, 'k3': 9 * 4 * 4, 'skip': 0}
  macs = 64 * (9 * 4 + sum(kernels[name] for name in found['architecture'].values())) + 4 * 10
  assert found['macs'] == macs


@pytest.mark.parametrize(('macs', 'names'), [(20_800, ['k3', 'k3']), (12_600, ['k1', 'k3']), (3_400, ['k1', 'skip'])])
def test_what_is_selected_is_within_the_budget(macs, names, tmp_path):
  """2,344 MACs and 9,216 of a k3, 1,024 of a k1, none of a skip; the first choice is the less sure one."""
  options = job.Options(space='tiny:Tiny', macs=macs)
  setting = setting_of('search', options, tmp_path)
  made = job.plan(options, setting)
  p = {'first/choice': [.4, .5, .1], 'second/choice': [.1, .8, .1]}
  found = job.Supernet(None, {path: jnp.asarray(q) for path, q in p.items()}, None)
  architecture = job.selected(options, setting, made, found, {})
  assert [architecture[path] for path in p] == names


def test_a_killed_search_ends_bitwise_the_same(run, tmp_path):
  environment = os.environ | {'PYTHONPATH': f'{HERE}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'}
  child = lambda *argv: subprocess.run([sys.executable, '-c', *argv], env=environment, capture_output=True, text=True)
  out = str(tmp_path / 'run')
  assert child(KILLED, 'search', *OPTIONS, '--random', '1', '--out', out).returncode == -9
  lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  assert json.loads(lines[-1])['step'] == 4
  resumed = child('from effjax.cli import main; import sys; sys.exit(main(sys.argv[1:]))', 'search', '--resume', out)
  assert resumed.returncode == 0, resumed.stderr
  first, second = results(run), results(tmp_path / 'run')
  assert {k: v for k, v in first.items() if k != 'seconds'} == {k: v for k, v in second.items() if k != 'seconds'}


@pytest.mark.parametrize(('how', 'devices'), [
    pytest.param('mesh', 2, marks=pytest.mark.slow), ('pmap', 4)])  # the step on a mesh: tests/train/parallel_test.py
def test_one_and_several_devices_find_the_same_architecture(how, devices, run, tmp_path, monkeypatch):
  monkeypatch.setattr(job, '_sharpness', lambda *args: 0.)  # on one device whatever the step does
  given = dict(zip((name.strip('-').replace('-', '_') for name in OPTIONS[::2]), OPTIONS[1::2]))
  kinds = {'space': str, 'decision_rate': float}
  options = job.Options(**{name: kinds.get(name, int)(value) for name, value in given.items()},
                        parallel=how, devices=devices)
  setting = setting_of('search', options, tmp_path)
  made = job.plan(options, setting)
  found = job.search_supernet(options, setting, made)
  history, one = job.observed(tmp_path), results(run)
  assert job.selected(options, setting, made, found, history) == one['architecture']
  for mine, theirs in zip(history['probabilities'], one['history']['probabilities'], strict=True):
    for path in mine:
      np.testing.assert_allclose(mine[path], theirs[path], rtol=2e-3)


def test_selections():
  net = search.NASBench201(10, features=2, cells=1)
  options = job.Options(select='eigenvalue')
  space = dict(search.nas_bench_201.SPACE)
  made = job.Plan(lambda axis: net, space, None, {}, None)
  p = {path: np.eye(5)[3] for path in space}
  early = {path: np.eye(5)[2].tolist() for path in space}
  history = {'eigenvalue': [1.] * 5 + [9.] * 5, 'probabilities': [early] * 10}
  found = job.Supernet(None, p, None)
  pick = lambda options, history: set(job.selected(options, None, made, found, history).values())
  assert pick(options, history) == {'nor_conv_1x1'}
  assert pick(options, history | {'eigenvalue': [1.] * 10}) == {'nor_conv_3x3'}
  assert pick(job.Options(), history) == {'nor_conv_3x3'}


def test_cells_of_darts_keep_two_edges_of_each_state():
  net = search.DARTSSpace(10, features=4, cells=3)
  space = encoding.space_of(net, jnp.zeros((1, 8, 8, 3)), False)
  random = np.random.default_rng(0)
  p = {path: random.dirichlet(np.ones(8)) for path in space}
  made = job.Plan(lambda axis: net, space, None, {}, None)
  found = job.selected(job.Options(space='darts'), None, made, job.Supernet(None, p, None), {})
  encoding.encode(space, found)
  for kind in ('normal', 'reduce'):
    of_kind = [name for path, name in found.items() if path.startswith(kind)]
    assert len(of_kind) == 14 and sum(name != 'none' for name in of_kind) == 8
  for path, (_, j) in search.edge_names().items():
    into = [other for other, (_, k) in search.edge_names().items() if k == j and other.split('/')[0] == path.split('/')[0]]
    assert sum(found[other] != 'none' for other in into) == 2


@pytest.mark.parametrize(('argv', 'text'), [
    (['--space', 'nowhere:Class'], r"search: --space 'nowhere:Class' cannot be imported \(.*\): give nb201, macro, darts"),
    (['--space', 'tiny:Empty'], 'Choice first: no candidates'),
    (['--space', 'tiny:Uneven'], r"Choice first: candidate 'wide' gives shape \(1, 8, 8, 3\), candidate 'narrow' gives"),
    (['--space', 'tiny:Tiny', '--cells', '2'], "search: --cells does nothing for --space tiny:Tiny, which has no 'cells'"),
    (['--auxiliary-skip', '--space', 'mbconv'], 'search: --auxiliary-skip does nothing for --space mbconv'),
    (['--max-skips', '2'], 'search: --max-skips is of the cells of --space darts'),
    (['--select', 'perturbation', '--space', 'darts', '--features', '4', '--cells', '1'],
     'search: --select perturbation decides on operators, and a state of --space darts keeps two edges'),
    (['--select', 'eigenvalue', '--weighting', 'gumbel'], 'search: --select eigenvalue wants --weighting softmax'),
    (['--space', 'tiny:Tiny', '--macs', '2000'],
     "budget 'macs' of 2000 cannot be met: the smallest reachable value is 2344; ask for that"),
    (['--devices', '99'], 'search: --devices 99, this machine has')])
def test_errors_come_before_anything_is_written(argv, text, tmp_path, capsys):
  assert main(['search', *argv, '--out', str(tmp_path / 'run')]) == 2
  assert re.search(text, capsys.readouterr().err) and not (tmp_path / 'run').exists()


def test_a_bilevel_that_is_none(capsys):
  with pytest.raises(SystemExit):
    main(['search', '--bilevel', 'third'])
  assert 'wants one of none, first, second, finite_differences, got third' in capsys.readouterr().err
