"""What all tests of the command share: it runs as a user runs it, over a space that compiles in seconds."""
import importlib.util
import pathlib

import jax
import pytest

SMALL = pathlib.Path(__file__).with_name('small.py')


def load(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope='module')
def small():
  """The path of the same job as a program; within this process the space is small while the module's tests run."""
  with pytest.MonkeyPatch.context() as patch:
    load(SMALL).shrink(patch.setattr)
    yield SMALL


@pytest.fixture(scope='module', autouse=True)
def _as_users_run_it():
  """The tests' strict promotion is for our own lines; optax raises a float to an integer power."""
  with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
    yield
