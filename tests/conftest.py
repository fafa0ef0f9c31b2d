"""What every test runs under: four CPU devices, strict dtypes and ranks, warnings as errors."""
import atexit
import os
import shutil
import tempfile

from jaxlib.version import __version_info__ as JAXLIB

# Before jax is imported: laws about several devices need several, also where there is no accelerator.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Compiling takes most of the time, and at level 1 half as long: LLVM unrolls no loops. XLA's own passes, and products and
# sums that are rounded once, are those of level 3. A level in XLA_FLAGS is kept: .ci/run takes 3 for the newest JAX.
# Older jaxlibs can write loops without MLIR, which sets up a context for each: a fifth quicker. 0.12 has MLIR alone, so
# that both are tested where .ci/run finds a newer Python.
os.environ['XLA_FLAGS'] = ' '.join((
    '--xla_backend_optimization_level=1', '--xla_cpu_use_fusion_emitters=false' * (JAXLIB < (0, 11)),
    os.environ.get('XLA_FLAGS', ''), '--xla_force_host_platform_device_count=4'))
# Workers, and the programs that tests start, compile what they share once. A folder in JAX_COMPILATION_CACHE_DIR stays:
# the next run takes half the time.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='compiled-')
  atexit.register(shutil.rmtree, os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)
os.environ |= {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0', 'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1'}

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')
# The same key gives the same numbers on 1 and on N devices: JAX's default, on which the device laws rest.
jax.config.update('jax_threefry_partitionable', True)

# Every annotated shape of levels 0 to 3 is checked at run time.
CHECKED = ('tree ste relax schedule term graph reparam quantize sparsify distill layers cost data search models').split()
install_import_hook([f'effjax.{unit}' for unit in CHECKED], 'beartype.beartype')
# All of effjax, before pytest imports modules one by one and so hides functions behind modules of the same name.
import effjax.cli  # noqa: E402, F401


def pytest_configure(config):
  """An entry of the cache that another process is still writing, or was killed at, is compiled again."""
  config.addinivalue_line('filterwarnings', 'ignore:Error reading persistent compilation cache entry')


def pytest_collection_modifyitems(items):
  """Skips what needs an accelerator where there is none."""
  if jax.default_backend() != 'cpu':
    return
  for item in items:
    if item.get_closest_marker('gpu'):
      item.add_marker(pytest.mark.skip(reason='no accelerator: run with JAX_PLATFORMS=cuda,cpu on a machine with one'))
