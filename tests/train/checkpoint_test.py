"""Checkpoints: bitwise, of any structure; what is corrupt, foreign or half written is told apart."""
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from effjax.errors import EffjaxError
from effjax.train import latest_step, restore, save


class Pair(NamedTuple):
  first: object
  second: object


def state_of(seed):
  """Everything a training state is made of, and more than ten entries in a row."""
  key = jax.random.key(seed)
  weights = {'params/w.kernel': jax.random.normal(key, (3, 2)), 'half': jnp.full((2,), seed, jnp.bfloat16)}
  return Pair(
      first=(weights, None, (), [jnp.float32(i + seed) for i in range(12)], optax.adam(.1).init(weights)),
      second={'key': key, 'keys': jax.random.split(key, 3), 'step': jnp.int32(seed), 'none': None,
              'flag': jnp.bool_(seed), 'codes': jnp.arange(4, dtype=jnp.int8), 'empty': jnp.zeros((0, 3)),
              'mask': optax.MaskedNode()})


def bits(tree):
  plain = jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)
  return [(np.asarray(x).dtype, np.asarray(x).shape, np.asarray(x).tobytes()) for x in jax.tree.leaves(plain)]


def test_everything_survives_bitwise(tmp_path):
  saved, like = state_of(1), state_of(0)
  save(tmp_path, 7, saved)
  found = restore(tmp_path, like)
  assert jax.tree.structure(found) == jax.tree.structure(saved)
  assert bits(found) == bits(saved)
  assert found.second['keys'].dtype == saved.second['keys'].dtype
  assert not any(x.weak_type for x in jax.tree.leaves(found.first))


def test_the_newest_two_are_kept_and_each_can_be_had(tmp_path):
  assert latest_step(tmp_path) is None
  assert latest_step(tmp_path / 'nowhere') is None
  for step in (1, 2, 3):
    save(tmp_path, step, state_of(step))
  assert latest_step(tmp_path) == 3
  assert int(restore(tmp_path, state_of(0), 2).second['step']) == 2
  assert not (tmp_path / '1').exists()


def test_like_may_have_been_donated(tmp_path):
  save(tmp_path, 1, state_of(1))
  like = state_of(0)
  like.second['step'].delete()
  assert int(restore(tmp_path, like).second['step']) == 1


def test_a_save_that_was_killed_is_not_a_checkpoint(tmp_path):
  save(tmp_path, 1, state_of(1))
  shutil.copytree(tmp_path / '1', tmp_path / '2.orbax-checkpoint-tmp')
  assert latest_step(tmp_path) == 1
  assert int(restore(tmp_path, state_of(0)).second['step']) == 1


@pytest.mark.parametrize('damage', ['truncate', 'flip', 'remove'])
def test_a_corrupt_checkpoint_names_its_folder_and_what_to_do(tmp_path, damage):
  big = {'w': jax.random.normal(jax.random.key(0), (200, 200))}
  save(tmp_path, 5, big)
  files = sorted((f for f in (tmp_path / '5').rglob('*') if f.is_file()), key=lambda f: f.stat().st_size)
  data = bytearray(files[-1].read_bytes())
  if damage == 'truncate':
    files[-1].write_bytes(data[:len(data) // 2])
  elif damage == 'flip':
    data[len(data) // 2] ^= 16
    files[-1].write_bytes(data)
  else:
    files[-1].unlink()
  with pytest.raises(EffjaxError, match=rf'checkpoint {tmp_path}/5 cannot be read .*remove that folder'):
    restore(tmp_path, big)


def test_a_checkpoint_of_another_model_names_the_first_leaf_that_differs(tmp_path):
  save(tmp_path, 5, {'w': jnp.zeros((2, 3))})
  with pytest.raises(EffjaxError, match=r"another model.*float32\[2, 3\] at 'w', wanted float32\[4\]"):
    restore(tmp_path, {'w': jnp.zeros(4)})
  with pytest.raises(EffjaxError, match=r"has nothing at 'b', wanted float32\[4\]"):
    restore(tmp_path, {'w': jnp.zeros((2, 3)), 'b': jnp.zeros(4)})


def test_a_checkpoint_that_another_program_wrote(tmp_path):
  with ocp.CheckpointManager(tmp_path) as manager:
    manager.save(3, args=ocp.args.StandardSave({'params': {'w': np.zeros(3, np.float32)}}))
  with pytest.raises(EffjaxError, match="has dict at 'params', wanted nothing"):
    restore(tmp_path, {'w': jnp.zeros(3)})


def test_no_checkpoint(tmp_path):
  with pytest.raises(EffjaxError, match=f'no checkpoint in {tmp_path}'):
    restore(tmp_path, {})
