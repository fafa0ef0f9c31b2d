"""Shrunk models as data: what was cut as JSON, the small parameters as an Orbax checkpoint. No code, no pickles."""
import importlib.metadata
import json
import os
import pathlib
import shutil
import uuid
import warnings
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from effjax import tree
from effjax.errors import EffjaxError
from effjax.graph.fingerprint import difference, digest, fingerprint
from effjax.graph.shrink import Shrunk
from effjax.graph.trace import trace
from effjax.tree import PyTree

MODEL, PARAMETERS = 'model.json', 'parameters'


def save(folder: str | os.PathLike, small: Callable, small_params: PyTree, *args: PyTree) -> None:
  """Writes what `shrink` returned to a new folder, whole or not at all.

  `model.json` has for each cut (several, if a shrunk function was shrunk again) a bit per channel, the choices, and
  each parameter's type before, kept entries per axis, and type after; then a line for each equation of the original
  function, by which `restore` knows it again. `parameters` is an Orbax checkpoint. A checksum is of both.

  Args:
    folder: must not exist; folders above it are made.
    small, small_params: as `shrink` returned them; the parameters may have been trained since.
    args: arrays or shapes; no value is read.

  Raises:
    EffjaxError: the folder exists or cannot be written; `small` is no shrunk function, or not of `small_params`.

  >>> import tempfile
  >>> from effjax.graph import shrink
  >>> fn, x = lambda p, x: jax.nn.relu(x @ p['a']) @ p['b'], jnp.ones((1, 3))
  >>> p, folder = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}, tempfile.mkdtemp() + '/model'
  >>> save(folder, *shrink(fn, p, [True, False, True, True], x), x)
  >>> json.loads(pathlib.Path(folder, 'model.json').read_text())['cuts'][0]['parameters']['a']
  {'before': 'float32[3, 4]', 'kept': {'1': '0,2-3'}, 'after': 'float32[3, 3]'}
  """
  path = pathlib.Path(os.path.abspath(folder))
  if os.path.lexists(path):
    raise EffjaxError(f'save: {path} exists: a saved model is never replaced, choose another folder')
  chain = _chain(small)
  plans = [step.plan(*args) for step in chain]
  cuts = [_cut(step, plan) for step, plan in zip(chain, plans)]
  if other := _mismatch(_texts(small_params), {n: x['after'] for n, x in cuts[-1]['parameters'].items()}):
    raise EffjaxError(f'save: small_params has {other}: give the parameters that `shrink` returned with the function')
  _write(path, {'versions': _versions(), 'arguments': _texts(args), 'cuts': cuts,
                'equations': fingerprint(plans[0].program)}, tree.leaves(small_params))


def restore(fn: Callable, params: PyTree, folder: str | os.PathLike, *args: PyTree) -> tuple[Shrunk, PyTree]:
  """`(small, small_params)` as `save` was given them, bitwise.

  The equations of `fn`, with the constants that it closes over, are compared with the saved ones. Another version of
  JAX or effjax may trace a function otherwise: then a difference of equations is a warning, one of channels an error.

  Args:
    fn: the function that was given to `shrink` (to the first one of a chain).
    params: its original parameters or their shapes (`jax.eval_shape`); no value is read.
    folder: as given to `save`.
    args: arrays or shapes of the same structure as then; the batch size may differ.

  Returns:
    The small function, and its parameters on the default device, None where a leaf is gone.

  Raises:
    EffjaxError: no saved model there, or a corrupt one; another function, arguments or shapes of parameters.

  >>> import tempfile
  >>> from effjax.graph import shrink
  >>> fn, x = lambda p, x: jax.nn.relu(x @ p['a']) @ p['b'], jnp.ones((1, 3))
  >>> p, folder = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}, tempfile.mkdtemp() + '/model'
  >>> save(folder, *shrink(fn, p, [True, False, True, True], x), x)
  >>> small, q = restore(fn, jax.eval_shape(lambda: p), folder, x)
  >>> small(q, x)
  Array([[9., 9.]], dtype=float32)
  """
  path = pathlib.Path(os.path.abspath(folder))
  model, arrays = _read(path)
  specs = jax.tree.map(lambda w: jax.ShapeDtypeStruct(jnp.shape(w), jnp.result_type(w)), params)
  if other := _mismatch(_texts(specs), {n: x['before'] for n, x in model['cuts'][0]['parameters'].items()}):
    raise EffjaxError(f'restore: {path} has other parameters, got {other}: give the shapes from before shrinking')
  args = _arguments(path, model['arguments'], args)
  if other := difference(trace(fn, specs, *args), model['equations']):
    if model['versions'] == _versions():
      raise _other(path, model, other)
    warnings.warn(f'{_other(path, model, other)}, or compare the outputs', stacklevel=2)
  for cut in model['cuts']:
    fn = Shrunk(fn, specs, np.array([bit == '1' for bit in cut['keep']], bool), cut['choices'])
    try:
      found = _cut(fn, fn.plan(*args))['parameters']
    except EffjaxError as error:  # another number of channels, or other choices
      raise _other(path, model, error) from error
    if other := _mismatch(found, cut['parameters']):
      raise _other(path, model, f'the cut is {other}')
    specs = tree.map_at(lambda name, w, to=found: _shaped(to[name]['after'], w.dtype), specs, found)
  return fn, jax.tree.unflatten(jax.tree.structure(specs), [jnp.array(arrays[name]) for name in tree.leaves(specs)])


def _chain(small) -> list[Shrunk]:
  if not isinstance(small, Shrunk):
    raise EffjaxError(f'save: small is a {type(small).__name__}: give the function that `shrink` returned')
  return [*(_chain(small.fn) if isinstance(small.fn, Shrunk) else ()), small]


def _cut(small, plan):
  """A shrunk function as JSON; `kept` are the entries that stay, of the axes that are cut."""
  def leaf(v):
    dtype, stays = plan.program.avals[v].dtype, [plan.kept[labels] for labels in plan.analysis.values[v].axes]
    return {'before': f'{dtype}{[len(s) for s in stays]}',
            'kept': {str(i): _ranges(np.flatnonzero(s)) for i, s in enumerate(stays) if not s.all()},
            'after': f'{dtype}{[int(s.sum()) for s in stays]}' if v in plan.used else None}
  return {'keep': ''.join(str(int(bit)) for bit in small.keep),
          'choices': {name: int(entry) for name, entry in small.choose.items()},
          'parameters': {name: leaf(v) for v, name in plan.program.paths.items()}}


def _ranges(entries):
  """`[0, 1, 2, 5]` as '0-2,5'."""
  runs = np.split(entries, np.flatnonzero(np.diff(entries) > 1) + 1) if len(entries) else []
  return ','.join(f'{run[0]}-{run[-1]}' if len(run) > 1 else f'{run[0]}' for run in runs)


def _write(path, model, leaves):
  """All is written beside, and renamed at the end."""
  beside = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}.part')
  arrays = {name: np.asarray(x) for name, x in leaves.items()}
  try:
    beside.mkdir(parents=True)
    if arrays:  # Orbax refuses an empty tree
      with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        checkpointer.save(beside / PARAMETERS, args=ocp.args.StandardSave(arrays))
    (beside / MODEL).write_text(json.dumps(model | {'checksum': _checksum(model, arrays)}, indent=2) + '\n')
    beside.rename(path)
  except OSError as error:
    raise EffjaxError(f'save: {path} cannot be written ({error}): choose another folder') from error
  finally:
    shutil.rmtree(beside, ignore_errors=True)


def _read(path):
  """The description and the arrays by path."""
  if not (path / MODEL).is_file():
    raise EffjaxError(f'restore: no saved model in {path} (no {MODEL}): give a folder that `save` wrote')
  try:
    model, arrays = json.loads((path / MODEL).read_bytes()), {}
    if (path / PARAMETERS).exists():
      with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        arrays = checkpointer.restore(path / PARAMETERS, args=ocp.args.StandardRestore())
    if model.pop('checksum') != _checksum(model, arrays):  # Orbax itself does not notice a changed value
      raise ValueError('the checksum differs')
  except Exception as error:  # whatever Orbax and TensorStore find: there is no common type
    reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
    raise EffjaxError(f'restore: {path} cannot be read ({reason}): save the model again') from error
  return model, arrays


def _checksum(model, arrays):
  return zlib.crc32(json.dumps([model, {name: digest(x) for name, x in arrays.items()}], sort_keys=True).encode())


def _arguments(path, saved, args):
  """`args` with the shapes that they had: the equations of a function may differ between batch sizes."""
  leaves, structure = jax.tree.flatten(args)
  if list(tree.leaves(args)) != list(saved):
    raise EffjaxError(f'restore: {path} was saved with arguments {list(saved)}, got {list(tree.leaves(args))}: give '
                      'arguments of the same structure')
  return structure.unflatten(x if _text(x) == text else _shaped(text, jnp.result_type(x))
                             for x, text in zip(leaves, saved.values()))


def _other(path, model, what):
  then, now = (', '.join(f'{name} {version}' for name, version in v.items()) for v in (model['versions'], _versions()))
  versions = '' if then == now else f', or use its versions ({then}; this is {now})'
  return EffjaxError(f'restore: {path} has another function: {what}: give the function it was saved with{versions}')


def _mismatch(got, wanted):
  """Where two dictionaries differ first, in words."""
  name = next((name for name in {**wanted, **got} if got.get(name) != wanted.get(name)), None)
  return name is not None and f'{got.get(name)} at {name!r}, wanted {wanted.get(name)}'[:300]


def _texts(leaves):
  return {name: _text(x) for name, x in tree.leaves(leaves).items()}


def _text(x):
  return f'{jnp.result_type(x)}{list(jnp.shape(x))}'


def _shaped(text, dtype):
  return text and jax.ShapeDtypeStruct(tuple(json.loads(text[text.index('['):])), dtype)


def _versions():
  return {name: importlib.metadata.version(name) for name in ('effjax', 'jax')}
