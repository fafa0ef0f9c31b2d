"""Freed memory stays: counted in page faults of a process of its own."""
import platform
import subprocess
import sys

import pytest

PROGRAM = '''
import resource, sys, jax, jax.numpy as jnp
from effjax.train import keep_memory
if sys.argv[1] == 'keep':
  assert keep_memory()
step = jax.jit(lambda x: (x @ x.T) @ x)
x = jnp.ones((4000, 4))
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
taken = []
for i in range(12):
  before = faults()
  step(x).block_until_ready()
  taken.append(faults() - before)
print(min(taken[2:]))  # a heap of another thread may still grow in some of them
'''


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='no glibc here')
def test_steps_take_few_new_pages():
  run = lambda how: int(subprocess.run([sys.executable, '-c', PROGRAM, how], capture_output=True, text=True,
                                       check=True).stdout)
  kept, plain = run('keep'), run('plain')
  assert plain > 2000 and kept < plain / 3
