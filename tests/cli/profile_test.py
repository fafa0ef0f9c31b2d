"""`effjax profile` of module:function or a network: the table, the JSON, the picture, and each mistake in one line."""
import json
import re

import jax
import pytest

from effjax.cli import main

NETS = '''
import jax
import jax.numpy as jnp

S = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)


def network(p, x):
  x = jax.lax.conv_general_dilated(x, p['kernel'], (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  x = jnp.mean(jax.nn.relu(x + p['bias']), (1, 2))
  x, _ = jax.lax.scan(lambda h, w: (h + jnp.tanh(h @ w), None), x, p['stack'])
  return x @ p['head'][x.shape[0] - 1]


def net():
  params = {'kernel': S(3, 3, 3, 4), 'bias': S(1, 1, 1, 4), 'stack': S(5, 4, 4), 'head': S(1, 4, 2)}
  return network, params, S(1, 8, 8, 3)


def arrays():
  return lambda p, x, y: {'out': x @ p + y}, jnp.ones((3, 4)), jnp.ones((2, 3)), jnp.ones((2, 4))


def loop():
  """The number of its turns is known only when it runs."""
  return (lambda p, x: jax.lax.while_loop(lambda h: jnp.sum(h) < 9, lambda h: h @ h, x) @ p), S(4, 4), S(4, 4)


def missing():
  return network, {'kernel': S(3, 3, 3, 4)}, S(1, 8, 8, 3)


def shapeless():
  return network, *net()[1:], S(1, 2)


def one():
  return network


def two():
  return {}, network


def wants(x):
  return network, {}, x


def integer():
  return (lambda p, x: x @ p['w']), {'w': jax.ShapeDtypeStruct((3, 4), jnp.int32)}, S(1, 3)


number = 3
'''


@pytest.fixture(autouse=True)
def _nets(tmp_path, monkeypatch):
  (tmp_path / 'profiled_nets.py').write_text(NETS)
  monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def run(capsys):
  """(exit code, stdout, stderr) of `effjax profile`."""
  def command(*argv):
    capsys.readouterr()
    code = main(['profile', *map(str, argv)])
    return code, *capsys.readouterr()
  return command


def cells(line):
  return [cell.strip() for cell in re.split('[│┃]', line)[1:-1]]


def test_table_in_the_order_of_execution_with_totals(run):
  code, out, err = run('profiled_nets:net')
  assert (code, err) == (0, '')
  rows = [cells(line) for line in out.splitlines() if line.startswith(('│', '┃'))]
  assert rows == [
      ['operation', 'kind', 'runs', 'MACs', 'parameters', 'read', 'written', 'MACs/byte', 'groups'],
      ['kernel', 'conv', '1', '3,888', '108', '192', '144', '2.19', '0'],
      ['', 'reduce', '1', '0', '0', '144', '4', '0', '0'],
      ['stack', 'dense', '5', '80', '80', '20', '20', '0.167', '0'],
      ['head', 'dense', '1', '8', '8', '4', '2', '0.143', '0'],
      ['parameters that no operation above reads', '', '', '', '4', '', '', '', ''],
      ['all', '', '', '3,976', '200', '360', '170', '', '']]
  assert '32 bits: weights 800 bytes, peak of the activations 1,344 bytes; prunable channels of each group: 0: 4' in out


def test_json_is_plain_numbers(run):
  code, out, _ = run('profiled_nets:net', '--format', 'json', '--bits', '8')
  found = json.loads(out)
  assert code == 0
  assert found['total'] == {'macs': 3976, 'parameters': 200, 'read': 360, 'written': 170, 'weight_bytes': 200.,
                            'peak_ram_bytes': 336.}
  assert (found['bits'], found['group_sizes'], found['other_parameters'], found['not_seen']) == (8, [4], 4, [])
  conv, _, layer, _ = found['ops']
  assert conv == {
      'path': 'kernel', 'scope': '', 'kind': 'conv', 'count': 1, 'macs': 3888, 'parameters': 108, 'read': 192,
      'written': 144, 'macs_per_byte': 3888 / (108 + 192 + 144), 'guards': [],
      'groups': {'weight': [[], [], [], [0]], 'read': [[], [], [], []], 'written': [[], [], [], [0]]}}
  assert (layer['path'], layer['count'], layer['groups']['weight']) == ('stack', 5, [[0], [0]])


def test_a_network_by_its_name(run):
  """As `models.count` counts it; the statistics of BatchNorm are no parameters."""
  code, out, err = run('mobilenet_v2_0.35', '--format', 'json', '--bits', '8')
  total = json.loads(out)['total']
  assert (code, err, total['parameters'], total['macs']) == (0, '', 1_677_128, 59_285_808)


def test_arrays_several_arguments_and_results(run):
  code, out, _ = run('profiled_nets:arrays', '--format', 'json')
  assert code == 0 and json.loads(out)['total']['macs'] == 24
  assert '(parameters)' in run('profiled_nets:arrays')[1]


def test_what_is_not_seen_is_said(run):
  code, out, _ = run('profiled_nets:loop')
  assert code == 0 and 'not counted: what the loop or branch in while computes' in out


def test_plot(run, tmp_path):
  pytest.importorskip('matplotlib')
  file = tmp_path / 'net.png'
  code, out, _ = run('profiled_nets:net', '--plot', file)
  assert code == 0 and 'kernel' in out
  assert file.read_bytes().startswith(b'\x89PNG')
  assert {path.name for path in tmp_path.iterdir()} >= {'net.png', 'profiled_nets.py'}
  assert not list(tmp_path.glob('.*.part'))


FORM = r'give module:function, called without arguments, that returns \(fn, params, \*args\)'
ERRORS = {
    'a module that is not there': ('nosuch:net', rf"'nosuch:net' cannot be imported \(No module named 'nosuch'\): {FORM}"),
    'no module': (':net', "':net' cannot be imported"),
    'a function that is not there': ('profiled_nets:nosuch', "'profiled_nets:nosuch' cannot be imported .*'nosuch'"),
    'no function': ('profiled_nets:', "'profiled_nets:' cannot be imported"),
    'a number': ('profiled_nets:number', rf"'profiled_nets:number' cannot be called without arguments .*{FORM}"),
    'a function with arguments': (
        'profiled_nets:wants', rf"'profiled_nets:wants' cannot be called without arguments \(missing .*'x'\): {FORM}"),
    'a function alone': ('profiled_nets:one', f"'profiled_nets:one' returns function: {FORM}"),
    'parameters first': ('profiled_nets:two', rf"'profiled_nets:two' returns \('dict', 'function'\): {FORM}"),
    'an argument too many': ('profiled_nets:shapeless', rf"cannot be traced \(TypeError: .*\): {FORM}"),
    'a parameter that is missing': ('profiled_nets:missing', rf"cannot be traced \(KeyError: 'bias'\): {FORM}"),
    'integer parameters': ('profiled_nets:integer', "parameter 'w' has dtype int32, wanted floating point"),
    'a picture that is there': ('profiled_nets:net --plot {}/there.png', 'there.png.* exists: choose another file'),
    'a picture of another kind': (
        'profiled_nets:net --plot {}/net.pdf', r"wanted a file name that ends in \.png, in a folder that exists"),
    'a picture in no folder': (
        'profiled_nets:net --plot {}/nosuch/net.png', r"wanted a file name that ends in \.png, in a folder that exists"),
    'a network that is not there': (
        'mobilenetv2', r"profile: 'mobilenetv2' is neither the folder of a run nor a network: nearest are "
        rf"\['mobilenet_v2.*\]; `effjax models` lists all; for a function {FORM}"),
    'options of a function with a run': (
        '{} --plot net.png --bits 8', r'profile: --plot, --bits: only for networks and module:function, got .*, which is profiled as the folder of a run: '
        'leave out what does nothing there'),
}


@pytest.mark.parametrize('case', ERRORS)
def test_errors(case, run, tmp_path):
  options, text = ERRORS[case]
  (tmp_path / 'there.png').write_bytes(b'mine')
  code, out, err = run(*options.replace('{}', str(tmp_path)).split())
  assert (code, out) == (2, '')
  assert err.startswith('effjax: ') and err.count('\n') == 1
  assert re.search(text, err)
  assert (tmp_path / 'there.png').read_bytes() == b'mine'


def test_matplotlib_missing(run, tmp_path, monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'matplotlib.figure', None)
  code, out, err = run('profiled_nets:net', '--plot', tmp_path / 'net.png')
  assert (code, out) == (2, '')
  assert "--plot needs matplotlib, which is not installed: pip install 'effjax[plots]'" in err
  assert not (tmp_path / 'net.png').exists()


@pytest.mark.parametrize('bits', ['0', '65', 'few', '1.5'])
def test_bits_out_of_range(bits, capsys):
  with pytest.raises(SystemExit) as error:
    main(['profile', 'profiled_nets:net', '--bits', bits])
  assert error.value.code == 2
  assert re.search(f'argument --bits: wants a whole number from 1 to 64, got {bits}', capsys.readouterr().err)


def test_nothing_is_computed(run, monkeypatch):
  """Shapes are enough: no operation of the network is compiled or run."""
  monkeypatch.setattr(jax, 'jit', lambda *_, **__: pytest.fail('compiled'))
  assert run('profiled_nets:net')[0] == 0
