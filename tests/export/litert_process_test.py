import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax import export

from effjax.errors import EffjaxError
from effjax.export import litert, litert_process


@pytest.fixture(scope='module')
def program():
  spec = jax.ShapeDtypeStruct((1, 3), jnp.float32)
  return bytes(export.export(jax.jit(lambda x: x * 2), platforms=['cpu'])(spec).mlir_module_serialized)


def test_the_child_makes_the_same_file(program):
  here, there = (litert.convert(program, ['x'], ['y'], quantized=False, isolated=way) for way in (False, True))
  assert here == there and here[4:8] == b'TFL3'


def test_a_crash_is_an_error(program, tmp_path, monkeypatch):
  child = tmp_path / 'child.py'
  child.write_text('import os, sys\nprint("last words", file=sys.stderr, flush=True)\nos.abort()\n')
  monkeypatch.setattr(litert_process, '__file__', str(child))
  with pytest.raises(litert.ConverterCrash, match=r"litert-converter crashed \(signal 6\) on the network: .*last words"):
    litert.convert(program, ['x'], ['y'], quantized=False, isolated=True)


@pytest.mark.parametrize('isolated', [False, True])
def test_what_is_no_program_is_the_same_error(isolated):
  with pytest.raises(EffjaxError, match='litert-converter cannot convert the network: Unable to parse'):
    litert.convert(b'no program', ['x'], ['y'], quantized=False, isolated=isolated)


def test_the_child_imports_neither_jax_nor_effjax():
  lines = pathlib.Path(litert_process.__file__).read_text().splitlines()
  imported = {word for line in lines if 'import ' in line for word in line.split()}
  assert {'json', 'litert_converter.mlir'} < imported and not {'jax', 'effjax', 'numpy'} & imported
