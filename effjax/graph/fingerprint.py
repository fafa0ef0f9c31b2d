"""Programs and arrays as short text, by which they are known again in another process."""
import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from effjax.graph.trace import Const, Program, flatten

HOW = frozenset({'precision', 'out_sharding', 'sharding', 'formulation'})  # of an equation: not what it computes


def fingerprint(program: Program) -> list[str]:
  """For each equation, and for the results: its primitive, and a CRC-32 of inputs, shapes, constants and bodies.

  >>> from effjax.graph.trace import trace
  >>> fingerprint(trace(lambda p, x: jnp.sin(x @ p), jnp.ones((3, 2)), jnp.ones((1, 3))))  # doctest: +ELLIPSIS
  ['dot_general ...', 'sin ...', 'return ...']
  """
  return [line for line, _ in _lines(program)]


def difference(program: Program, lines: Sequence[str]) -> str | None:
  """The first equation that is another one than in `lines` (a fingerprint), None if all are the same.

  >>> from effjax.graph.trace import trace
  >>> sin, cos = (trace(lambda p, x, f=f: f(x * p), jnp.ones(3), jnp.ones(3)) for f in (jnp.sin, jnp.cos))
  >>> difference(sin, fingerprint(cos)), difference(sin, fingerprint(sin))
  ("equation 1 is 'sin', saved 'cos'", None)
  """
  for i, (new, old) in enumerate(itertools.zip_longest(_lines(program), lines)):
    line, scope = new or ('nothing', '')
    if line != old:
      name, was = line.split()[0], (old or 'nothing').split()[0]
      what = f'{name!r}, saved {was!r}' if name != was else f'{name!r} of other inputs, shapes or constants'
      return f'equation {i}{scope and f" in {scope!r}"} is {what}'
  return None


def digest(x: Any) -> str:
  """Type and CRC-32 of an array, also of random keys.

  >>> digest(np.ones(2, np.float32))
  'float32[2] d5065190'
  """
  x = np.asarray(jax.random.key_data(x) if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key) else x)
  return f'{x.dtype}{list(x.shape)} {zlib.crc32(np.ascontiguousarray(x).tobytes()):08x}'


def _lines(program) -> Iterator[tuple[str, str]]:
  """The lines, each with the scope of its equation."""
  flat = flatten(program)
  line = lambda name, *parts: f'{name} {zlib.crc32(repr(parts).encode()):08x}'
  read = lambda vs: [digest(v.value) if isinstance(v, Const) else v for v in vs]
  for eqn in flat.eqns:
    params = {name: _stable(x) for name, x in sorted(eqn.params.items()) if name not in HOW}
    yield line(eqn.name, read(eqn.inputs), [str(flat.avals[v]) for v in eqn.outputs], params), eqn.scope
  yield line('return', read(flat.outputs), str(flat.out_tree)), ''


def _stable(x):
  """The text of an equation's parameter, the same in every process, in a terminal or not."""
  if isinstance(x, set | frozenset):
    return sorted(map(_stable, x))
  if isinstance(x, tuple | list):
    return list(map(_stable, x))
  text = x.pretty_print(use_color=False) if hasattr(x, 'pretty_print') else str(x)
  return re.sub(r' at 0x[0-9a-f]+', '', text)
