"""Orbax checkpoints of any pytree: saved whole or not at all, restored bitwise into the structure asked for."""
import os
import zlib
from pathlib import Path as Folder

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from effjax import tree
from effjax.errors import EffjaxError
from effjax.tree import PyTree

CHECKSUMS = 'checksums'


def save(directory: str | os.PathLike, step: int, state: PyTree) -> None:
  """Writes `directory/<step>` atomically and keeps the newest two.

  A flat dictionary from path to array goes to Orbax, random keys as their data, with a CRC-32 per leaf. NamedTuples,
  tuples and None need no encoding: `restore` takes the structure from its argument.

  >>> import tempfile
  >>> folder = tempfile.mkdtemp()
  >>> save(folder, 3, {'w': jnp.ones(2), 'none': None})
  >>> latest_step(folder), restore(folder, {'w': jnp.zeros(2), 'none': None})
  (3, {'none': None, 'w': Array([1., 1.], dtype=float32)})
  """
  arrays = {path: np.asarray(x) for path, x in _plain(state).items()}
  arrays[CHECKSUMS] = np.array([_checksum(x) for x in arrays.values()], np.uint32)
  with _manager(directory, create=True) as manager:
    manager.save(step, args=ocp.args.StandardSave({name: x for name, x in arrays.items() if x.size}))


def latest_step(directory: str | os.PathLike) -> int | None:
  """The newest step saved in a folder, None if there is no checkpoint or no folder."""
  if not Folder(directory).is_dir():
    return None
  with _manager(directory, create=False) as manager:
    return manager.latest_step()


def restore(directory: str | os.PathLike, like: PyTree, step: int | None = None) -> PyTree:
  """The state saved at `step` (default the newest), bitwise, in the structure of `like`.

  Args:
    directory: as given to `save`.
    like: a state of the same structure, shapes and dtypes; its values are not read.
    step: which one.

  Raises:
    EffjaxError: no checkpoint there; one that cannot be read or whose checksums differ; one of another model.
  """
  step = latest_step(directory) if step is None else step
  if step is None:
    raise EffjaxError(f'no checkpoint in {directory}: give the folder of a run that has saved one')
  folder, shapes = Folder(directory) / str(step), jax.eval_shape(_plain, like)
  wanted = {path: shapes[path] for path in tree.leaves(like)}
  saved = _read(folder, directory, step)
  _check_same(folder, saved, wanted)
  found = [saved[name] if x.size else np.zeros(x.shape, x.dtype) for name, x in wanted.items()]
  if saved[CHECKSUMS].tolist() != [_checksum(x) for x in found]:
    raise _corrupt(folder, 'checksums differ')
  leaves, structure = jax.tree.flatten(like)
  return jax.tree.unflatten(structure, [_like(x, leaf) for x, leaf in zip(found, leaves, strict=True)])


def _read(folder, directory, step):
  try:
    with _manager(directory, create=False) as manager:
      saved = manager.restore(step, args=ocp.args.StandardRestore())
      return saved if isinstance(saved, dict) else {'': saved}
  except Exception as error:  # Whatever Orbax and TensorStore find: there is no common type.
    raise _corrupt(folder, f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}') from error


def _corrupt(folder, reason):
  return EffjaxError(f'checkpoint {folder} cannot be read ({reason[:200]}): remove that folder to resume from the one '
                     'before it, or its parent to start again')


def _check_same(folder, saved, wanted):
  wanted = {name: x for name, x in wanted.items() if x.size} | {CHECKSUMS: np.zeros(len(wanted), np.uint32)}
  for name in sorted(saved | wanted, key=lambda name: (name == CHECKSUMS, name)):
    got, want = _described(saved.get(name)), _described(wanted.get(name))
    if got != want:
      raise EffjaxError(f'checkpoint {folder} is of another model or other options: it has {got} at {name!r}, wanted '
                        f'{want}; resume with the options of the run that wrote it, or give another folder')


def _described(x):
  return 'nothing' if x is None else f'{x.dtype.name}{list(x.shape)}' if hasattr(x, 'dtype') else type(x).__name__


def _manager(directory, create):
  options = ocp.CheckpointManagerOptions(max_to_keep=2, create=create, enable_async_checkpointing=False)
  return ocp.CheckpointManager(os.path.abspath(directory), options=options)


def _plain(state):
  return {path: jax.random.key_data(x) if _is_key(x) else x for path, x in tree.leaves(state).items()}


def _like(x, leaf):
  return jax.random.wrap_key_data(jnp.array(x), impl=jax.random.key_impl(leaf)) if _is_key(leaf) else jnp.array(x)


def _is_key(x):
  return jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key)


def _checksum(x):
  return zlib.crc32(np.ascontiguousarray(x).tobytes())
