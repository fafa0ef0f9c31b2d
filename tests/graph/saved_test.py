"""Shrunk models on disk: bitwise back, from shapes alone, in any process; whole or not there; each mistake by name."""
import functools
import importlib.metadata
import json
import os
import pickle
import subprocess
import sys

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from effjax import graph, tree
from effjax.errors import EffjaxError
from effjax.graph import saved

X = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)
flat = lambda x: x.reshape(x.shape[0], -1)


class Net(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(6, (3, 3))(x)))
    return nn.Dense(3)(x.mean((1, 2)))


def flax():
  return Net().apply, lambda key: Net().init(key, X)


def haiku():
  net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([7, 3])(flat(x))))
  return net.apply, lambda key: net.init(key, X)


def equinox():
  """A module in a tuple in a dictionary; what is no array is None."""
  make = lambda key: {'nets': (eqx.nn.MLP(32, 3, 6, 1, key=key), None)}
  static = eqx.partition(make(jax.random.key(0)), eqx.is_inexact_array)[1]
  fn = lambda p, x: jax.vmap(eqx.combine(p, static)['nets'][0])(flat(x))
  return fn, lambda key: eqx.filter(make(key), eqx.is_inexact_array)


def plain():
  """Dictionaries and lists in bfloat16 and float32, an operator choice, a scalar."""
  def fn(p, x):
    x, m = flat(x), p['mix']
    y = jax.nn.relu(x.astype(jnp.bfloat16) @ p['in']['a']).astype(jnp.float32) @ p['in']['b']
    return (m[0] * y + m[1] * jnp.tanh(x @ p['in']['c'])) @ p['out'][0] * p['out'][1]
  return fn, lambda key: {'in': {'a': jnp.ones((32, 6), jnp.bfloat16), 'b': jnp.ones((6, 5)), 'c': jnp.ones((32, 5))},
                          'mix': jnp.ones(2), 'out': [jnp.ones((5, 3)), jnp.ones(())]}


def scanned():
  def fn(p, x):
    h = jax.nn.relu(flat(x) @ p['a'])
    return jax.lax.scan(lambda h, w: (h + jax.nn.silu(h @ w), None), h @ p['b'], p['stack'])[0]
  return fn, lambda key: {'a': jnp.ones((32, 5)), 'b': jnp.ones((5, 3)), 'stack': jnp.ones((2, 3, 3))}


MODELS = {'flax': flax, 'haiku': haiku, 'equinox': equinox, 'plain': plain, 'scanned': scanned}
CHOICES = {'plain': {'mix': 0}}


@pytest.fixture(autouse=True)
def _loose():
  """The layers of other libraries promote ranks and dtypes."""
  with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
    yield


@functools.cache
def shrunk(name):
  """The function, shapes of its parameters, and what `shrink` gave: every third channel is gone."""
  fn, init = MODELS[name]()
  specs, rng = jax.eval_shape(init, jax.random.key(0)), np.random.default_rng(1)
  params = jax.tree.map(lambda w: jnp.asarray(rng.uniform(.1, 1, w.shape) - (w.ndim > 1) / 2, w.dtype), specs)
  keep = np.arange(graph.channels(fn, params, X).size) % 3 != 1
  assert not keep.all()
  return fn, specs, *graph.shrink(fn, params, keep, X, choose=CHOICES.get(name))


@functools.cache
def output(name):
  _, _, small, less = shrunk(name)
  out = np.asarray(small(less, X))
  assert np.isfinite(out).all()
  return out


def bits(params):
  return {path: (w.dtype, w.shape, np.asarray(w).tobytes()) for path, w in tree.leaves(params).items()}


@pytest.mark.parametrize('name', MODELS)
def test_restored_bitwise_from_shapes_at_another_batch_size(tmp_path, name):
  fn, specs, small, less = shrunk(name)
  graph.save(tmp_path / 'new' / 'model', small, less, X)
  again, params = graph.restore(fn, specs, tmp_path / 'new' / 'model', X[:1])
  assert jax.tree.structure(params) == jax.tree.structure(less) and bits(params) == bits(less)
  np.testing.assert_array_equal(again(params, X), output(name))
  assert os.listdir(tmp_path) == ['new'] and os.listdir(tmp_path / 'new') == ['model']


def restore_all(folder):
  """What another process does: no values, no pickles, other hashes of strings."""
  def refuse(*args, **kwargs):
    raise AssertionError('a pickle')
  made = {name: (fn, jax.eval_shape(init, jax.random.key(0))) for name, (fn, init) in
          ((name, make()) for name, make in MODELS.items())}
  pickle.load = pickle.loads = pickle.Unpickler = pickle._Unpickler = refuse
  for name, (fn, specs) in made.items():
    small, params = graph.restore(fn, specs, f'{folder}/{name}', X)
    np.save(f'{folder}/{name}.npy', small(params, X))


@pytest.mark.slow
def test_restored_bitwise_in_a_fresh_process(tmp_path):
  for name in MODELS:
    graph.save(tmp_path / name, *shrunk(name)[2:], X)
  load = (f'import importlib.util as u; s = u.spec_from_file_location("saved_test", {__file__!r}); '
          f'm = u.module_from_spec(s); s.loader.exec_module(m); m.restore_all({str(tmp_path)!r})')
  done = subprocess.run([sys.executable, '-c', load], env=os.environ | {'PYTHONHASHSEED': '7'}, capture_output=True,
                        text=True)
  assert done.returncode == 0, done.stderr
  for name in MODELS:
    assert np.load(tmp_path / f'{name}.npy').tobytes() == output(name).tobytes(), name


def test_the_description_says_what_was_cut(tmp_path):
  graph.save(tmp_path / 'm', *shrunk('plain')[2:], X)
  model = json.loads((tmp_path / 'm' / 'model.json').read_text())
  assert model['arguments'] == {'0': 'float32[3, 4, 4, 2]'}
  assert model['versions'] == {'effjax': importlib.metadata.version('effjax'), 'jax': jax.__version__}
  cut, = model['cuts']
  # Channels 0 to 5 are those of a's columns, 6 to 10 b's: 1, 4 and 7, 10 are gone.
  assert (cut['keep'], cut['choices']) == ('10110110110', {'mix': 0})
  assert cut['parameters'] == {
      'in/a': {'before': 'bfloat16[32, 6]', 'kept': {'1': '0,2-3,5'}, 'after': 'bfloat16[32, 4]'},
      'in/b': {'before': 'float32[6, 5]', 'kept': {'0': '0,2-3,5', '1': '0,2-3'}, 'after': 'float32[4, 3]'},
      'in/c': {'before': 'float32[32, 5]', 'kept': {'1': '0,2-3'}, 'after': None},
      'mix': {'before': 'float32[2]', 'kept': {'0': '0'}, 'after': None},
      'out/0': {'before': 'float32[5, 3]', 'kept': {'0': '0,2-3'}, 'after': 'float32[3, 3]'},
      'out/1': {'before': 'float32[]', 'kept': {}, 'after': 'float32[]'}}


@pytest.mark.parametrize(('kept', 'text'), [([], ''), ([4], '4'), ([0, 1], '0-1'), ([0, 2, 4], '0,2,4'),
                                            ([1, 2, 4, 5, 6], '1-2,4-6')])
def test_entries_as_text(kept, text):
  assert saved._ranges(np.array(kept, int)) == text


def test_trained_parameters_and_a_function_without_any(tmp_path):
  fn = lambda p, x: p['c'][0] * x + p['c'][1] * (x @ p['w'])
  params, x = {'c': jnp.ones(2), 'w': jnp.ones((3, 3))}, jnp.ones((2, 3))
  graph.save(tmp_path / 'none', *graph.shrink(fn, params, [], x, choose={'c': 0}), x)
  small, less = graph.restore(fn, params, tmp_path / 'none', x)
  assert less == {'c': None, 'w': None}
  np.testing.assert_array_equal(small(less, x), x)
  matmul = lambda p, x: x @ p
  small, less = graph.shrink(matmul, params['w'], [], x)
  graph.save(tmp_path / 'one', small, 2 * less, x)
  np.testing.assert_array_equal(graph.restore(matmul, less, tmp_path / 'one', x)[1], 2 * np.ones((3, 3)))


# --- a small network for the rest ---------------------------------------------------------------------------------

PARAMS = {'a': jnp.arange(12.).reshape(3, 4), 'b': jnp.ones((4, 2))}
KEEP = np.array([True, False, True, True])
ROW = jnp.ones((1, 3))


def relu(p, x):
  return jax.nn.relu(x @ p['a']) @ p['b']


def save_relu(folder):
  graph.save(folder, *graph.shrink(relu, PARAMS, KEEP, ROW), ROW)
  return folder


def test_a_chain_is_one_folder(tmp_path):
  fn = lambda p, x: relu(p, x) * p['m'][0] + x[:, :2] * p['m'][1]
  params = PARAMS | {'m': jnp.array([1., 2.])}
  first, less = graph.shrink(fn, params, KEEP, ROW, choose={'m': 0})
  second, least = graph.shrink(first, less, [False, True, True], ROW)
  graph.save(tmp_path / 'm', second, least, ROW)
  cuts = json.loads((tmp_path / 'm/model.json').read_text())['cuts']
  assert [cut['parameters']['b']['kept']['0'] for cut in cuts] == ['0,2-3', '1-2']
  again, found = graph.restore(fn, params, tmp_path / 'm', ROW)
  assert bits(found) == bits(least) and jax.tree.structure(found) == jax.tree.structure(least)
  assert found['a'].shape == (3, 2)
  np.testing.assert_array_equal(again(found, ROW), second(least, ROW))
  np.testing.assert_array_equal(again(found, ROW), ROW @ PARAMS['a'][:, 2:] @ PARAMS['b'][2:])
  graph.save(tmp_path / 'again', again, found, ROW)
  assert (tmp_path / 'again/model.json').read_bytes() == (tmp_path / 'm/model.json').read_bytes()


def test_parameters_on_several_devices(tmp_path):
  """Sharded over four devices: the description, with its checksum, is the one that a single device writes."""
  params = {'a': jnp.ones((8, 4)), 'b': jnp.ones((4, 2))}
  small, less = graph.shrink(relu, params, KEEP, jnp.ones((1, 8)))
  mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  put = lambda w: jax.device_put(w, jax.NamedSharding(mesh, jax.P('data' if w.shape[0] % 4 == 0 else None)))
  spread = jax.tree.map(put, less)
  assert not spread['a'].is_fully_replicated
  graph.save(tmp_path / 'many', small, spread, jnp.ones((1, 8)))
  graph.save(tmp_path / 'one', small, less, jnp.ones((1, 8)))
  assert (tmp_path / 'many/model.json').read_bytes() == (tmp_path / 'one/model.json').read_bytes()
  found = graph.restore(relu, jax.tree.map(put, params), tmp_path / 'many', jnp.ones((1, 8)))[1]
  assert bits(found) == bits(less) and all(len(w.devices()) == 1 for w in jax.tree.leaves(found))


@pytest.mark.parametrize('kind', ['empty', 'file', 'link'])
def test_nothing_that_exists_is_replaced(tmp_path, kind):
  folder = tmp_path / 'm'
  {'empty': folder.mkdir, 'file': folder.touch, 'link': lambda: folder.symlink_to('nowhere')}[kind]()
  with pytest.raises(EffjaxError, match=f'save: {folder} exists: .* choose another folder'):
    save_relu(folder)
  assert sorted(tmp_path.rglob('*')) == [folder]


@pytest.mark.parametrize('error', [OSError('disk full'), KeyboardInterrupt()], ids=['disk', 'interrupt'])
@pytest.mark.parametrize('where', [(ocp.Checkpointer, 'save'), (saved.json, 'dumps')], ids=['orbax', 'json'])
def test_nothing_half_written_is_left(tmp_path, monkeypatch, error, where):
  def fail(*args, **kwargs):
    raise error
  monkeypatch.setattr(*where, fail)
  with pytest.raises((KeyboardInterrupt, EffjaxError)) as raised:
    save_relu(tmp_path / 'm')
  if isinstance(error, OSError):
    assert str(raised.value) == f'save: {tmp_path}/m cannot be written (disk full): choose another folder'
  assert list(tmp_path.iterdir()) == []


def test_a_folder_that_came_meanwhile_is_not_replaced(tmp_path, monkeypatch):
  def meanwhile(model, arrays):
    (tmp_path / 'm').mkdir()
    (tmp_path / 'm' / 'theirs').touch()
    return 0
  monkeypatch.setattr(saved, '_checksum', meanwhile)
  with pytest.raises(EffjaxError, match=f'save: {tmp_path}/m cannot be written .*not empty'):
    save_relu(tmp_path / 'm')
  assert [path.name for path in tmp_path.rglob('*')] == ['m', 'theirs']


@pytest.mark.parametrize('made', [False, True])
def test_no_saved_model(tmp_path, made):
  folder = tmp_path if made else tmp_path / 'nowhere'
  with pytest.raises(EffjaxError, match=rf'restore: no saved model in {folder} \(no model.json\): give a folder'):
    graph.restore(relu, PARAMS, folder, ROW)


DAMAGE = {
    'half': ('model.json', lambda data: data[:len(data) // 2], 'JSONDecodeError'),
    'binary': ('model.json', lambda data: b'\xff\xfe\xfa', 'UnicodeDecodeError'),
    'list': ('model.json', lambda data: b'[]', 'TypeError'),
    'edited': ('model.json', lambda data: data.replace(b'101', b'011'), 'the checksum differs'),
    'short': ('parameters', lambda data: data[:len(data) // 2], ''),
    'flipped': ('parameters', lambda data: data[:600] + bytes([data[600] ^ 16]) + data[601:], 'the checksum differs'),
    'gone': ('parameters', None, ''),
    'all gone': (None, None, 'the checksum differs')}


@pytest.mark.parametrize('name', DAMAGE)
def test_a_corrupt_model(tmp_path, name):
  """Of one leaf: where one of several cannot be read, TensorStore complains of the others in a thread of its own."""
  fn, params = lambda p, x: jax.nn.relu(x @ p).sum(1), jax.random.normal(jax.random.key(0), (3, 400))
  folder, (where, damage, reason) = tmp_path / 'm', DAMAGE[name]
  graph.save(folder, *graph.shrink(fn, params, np.arange(400) % 2 == 0, ROW), ROW)
  if where is None:
    (folder / 'parameters').rename(tmp_path / 'elsewhere')
  else:
    path = max((f for f in [folder / where, *folder.rglob(f'{where}/**/*')] if f.is_file()), key=lambda f: f.stat().st_size)
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
  with pytest.raises(EffjaxError, match=rf'restore: {folder} cannot be read \(.*{reason}.*\): save the model again') as e:
    graph.restore(fn, params, folder, ROW)
  assert '\n' not in str(e.value)


# --- mistakes -----------------------------------------------------------------------------------------------------

def test_what_is_saved_is_what_shrink_returned(tmp_path):
  small, less = graph.shrink(relu, PARAMS, KEEP, ROW)
  with pytest.raises(EffjaxError, match='save: small is a function: give the function that `shrink` returned'):
    graph.save(tmp_path / 'm', relu, less, ROW)
  with pytest.raises(EffjaxError, match=r"save: small_params has float32\[3, 4\] at 'a', wanted float32\[3, 3\]: give"):
    graph.save(tmp_path / 'm', small, PARAMS, ROW)
  with pytest.raises(EffjaxError, match=r"save: small_params has None at 'b', wanted float32\[3, 2\]: give"):
    graph.save(tmp_path / 'm', small, less | {'b': None}, ROW)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(('params', 'text'), [
    (PARAMS | {'a': jnp.ones((3, 5))}, r"float32\[3, 5\] at 'a', wanted float32\[3, 4\]"),
    (PARAMS | {'a': jnp.ones((3, 4), jnp.bfloat16)}, r"bfloat16\[3, 4\] at 'a', wanted float32\[3, 4\]"),
    ({'a': PARAMS['a']}, r"None at 'b', wanted float32\[4, 2\]"),
    (PARAMS | {'c': jnp.ones(2)}, r"float32\[2\] at 'c', wanted None")])
def test_other_parameters(tmp_path, params, text):
  with pytest.raises(EffjaxError, match=f'm has other parameters, got {text}: give the shapes from before shrinking'):
    graph.restore(relu, params, save_relu(tmp_path / 'm'), ROW)


def test_other_arguments(tmp_path):
  with pytest.raises(EffjaxError, match=r"m was saved with arguments \['0'\], got \['0', '1'\]: give arguments of"):
    graph.restore(relu, PARAMS, save_relu(tmp_path / 'm'), ROW, ROW)


def test_another_function(tmp_path):
  other = lambda p, x: jnp.tanh(x @ p['a']) @ p['b']
  text = f"restore: {tmp_path}/m has another function: equation 1 is 'tanh', saved 'max': give the function"
  with pytest.raises(EffjaxError, match=text):
    graph.restore(other, PARAMS, save_relu(tmp_path / 'm'), ROW)


@pytest.fixture
def older(tmp_path, monkeypatch):
  """A model as if it were saved by another JAX."""
  with monkeypatch.context() as then:
    then.setattr(saved, '_versions', lambda: {'jax': '0.0.1'})
    return save_relu(tmp_path / 'm')


def test_with_another_version_other_equations_are_a_warning(older):
  graph.restore(relu, PARAMS, older, ROW)  # the same equations: silence
  text = r"equation 1 is 'tanh', .*saved with, or use its versions \(jax 0.0.1; this is effjax .*or compare the outputs"
  with pytest.warns(UserWarning, match=text):
    small, less = graph.restore(lambda p, x: jnp.tanh(x @ p['a']) @ p['b'], PARAMS, older, ROW)
  np.testing.assert_array_equal(small(less, ROW), jnp.tanh(ROW @ PARAMS['a'][:, KEEP]) @ PARAMS['b'][KEEP])


@pytest.mark.parametrize(('fn', 'text'), [
    (lambda p, x: x @ p['a'] @ p['b'][::-1], r"the cut is .*'0-1,3'.* at 'b', wanted .*'0,2-3'"),
    (lambda p, x: jnp.cumsum(x @ p['a'], 1) @ p['b'], r'.* a keep mask of shape \(4,\), wanted \(0,\)')])
def test_with_another_version_other_channels_are_an_error(older, fn, text):
  with (pytest.warns(UserWarning, match='has another function: equation'),
        pytest.raises(EffjaxError, match=f'has another function: {text}.*or use its versions')):
    graph.restore(fn, PARAMS, older, ROW)
