"""A float .tflite file run against the function that it was made of."""
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from effjax.errors import EffjaxError
from effjax.export import litert
from effjax.tree import PyTree


def samples(x: PyTree, specs: Sequence[jax.ShapeDtypeStruct]) -> Iterator[list[np.ndarray]]:
  """Inputs of a file: the first example if arrays are given, then normal numbers (integers stay the example's)."""
  given = [None if isinstance(leaf, jax.ShapeDtypeStruct) else np.asarray(leaf[:1] if leaf.ndim else leaf)
           for leaf in jax.tree.leaves(x)]
  first = [np.zeros(s.shape, s.dtype) if g is None else g.astype(s.dtype) for g, s in zip(given, specs, strict=True)]
  random = np.random.default_rng(0)
  yield first
  yield [random.normal(size=s.shape).astype(s.dtype) if s.dtype == jnp.float32 else g
         for g, s in zip(first, specs, strict=True)]


def check(content: bytes, run: Callable, inputs: Iterator[list[np.ndarray]], names: Sequence[str],
          tolerance: float) -> None:
  """The file's outputs are those of `run`, under XNNPACK and under the builtin kernels.

  Integer outputs are compared in shape only: a rounding may decide an argmax.

  Args:
    names: of the outputs.
    tolerance: the largest difference of an output, in parts of its largest entry.

  Raises:
    EffjaxError: the file does not run, has an output of another shape, or another value.
  """
  interpreters = [litert.Interpreter(content, xnnpack=xnnpack) for xnnpack in (True, False)]
  for sample in inputs:
    expected = [np.asarray(y) for y in jax.tree.leaves(run(*sample))]
    for interpreter in interpreters:
      for name, y, got in zip(names, expected, interpreter.run(*sample), strict=True):
        _compare(name, y, got, tolerance)


def _compare(name, y, got, tolerance) -> None:
  if got.shape != y.shape:
    raise EffjaxError(f'float_tflite: output {name!r} has shape {got.shape} in the file, wanted {y.shape}: the '
                      'converter got an operator wrong; export parts of fn to find it, and write it otherwise')
  if not jnp.issubdtype(y.dtype, jnp.floating):
    return
  finite = np.isfinite(y)
  same = np.array_equal(finite, np.isfinite(got)) and np.array_equal(y[~finite], got[~finite], equal_nan=True)
  far = np.abs(y[finite] - got[finite]).max(initial=0) if same else np.inf
  top = np.abs(y[finite]).max(initial=0)
  if far > tolerance * top + 1e-6:
    raise EffjaxError(f'float_tflite: output {name!r} of the file differs from that of fn by up to {far:.2g}, wanted '
                      f'less than {tolerance:.2g} of its largest entry {top:.2g}: export parts of fn to find the '
                      'operator, and write it otherwise')
