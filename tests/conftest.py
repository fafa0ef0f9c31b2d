"""What every test runs under: four CPU devices, strict dtypes and ranks, warnings as errors."""
import os

# Before jax is imported: laws about several devices need several, also where there is no accelerator.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=4'

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


def pytest_collection_modifyitems(items):
  """Skips what needs an accelerator where there is none."""
  if jax.default_backend() != 'cpu':
    return
  for item in items:
    if item.get_closest_marker('gpu'):
      item.add_marker(pytest.mark.skip(reason='no accelerator: run with JAX_PLATFORMS=cuda,cpu on a machine with one'))
