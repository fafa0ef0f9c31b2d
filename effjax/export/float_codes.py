"""Trained codes in a float .tflite file: the leaves that are stored as integers, and the check that they are."""
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import tree
from effjax.errors import EffjaxError
from effjax.export import flatbuffer, tensors
from effjax.export.kernels import codes_of
from effjax.reparam import Fact
from effjax.tree import Path, PyTree


class Coded(NamedTuple):
  """A leaf, `codes * scales`: int8 codes, bits of their container (4 or 8), scales along `axis` (None: one for all)."""
  codes: np.ndarray
  bits: int
  scales: np.ndarray
  axis: int | None


def coded(params: PyTree, facts: Mapping[Path, Fact]) -> dict[Path, Coded]:
  """The leaves that `facts` gives a scale.

  Raises:
    EffjaxError: a path that params has not; a leaf that is not its codes times its scales, or has scales along
      several axes.

  >>> coded({'w': jnp.array([[1., -.5]])}, {'w': Fact(bits=4, scale=jnp.float32(.5))})['w']
  Coded(codes=array([[ 2, -1]], dtype=int8), bits=4, scales=array([0.5], dtype=float32), axis=None)
  """
  known, facts = tree.leaves(params), {path: fact for path, fact in facts.items() if fact.scale is not None}
  if strange := sorted(set(facts) - set(known)):
    raise EffjaxError(f'float_tflite: facts are given for {strange}, which params has not: choose from {list(known)}')
  return {path: _coded(path, np.asarray(known[path], np.float32), fact) for path, fact in facts.items()}


def composite(kernel: Coded, w: jax.Array) -> jax.Array:
  """w, marked with its scales: the converter stores its codes, and folds what scales its outputs into the scales.

  Scales and zero points must be NumPy arrays, the zero points of integers: floats are read as 0.
  """
  attributes = {'scale': kernel.scales, 'zero_point': np.zeros(kernel.scales.shape, np.int64),
                'dtype': f'i{kernel.bits}', 'narrow_range': True}
  attributes |= {} if kernel.axis is None else {'quantization_dimension': kernel.axis}
  return jax.lax.composite(lambda x, **_: x + jnp.zeros_like(x), name='quant.fake_quant')(w, **attributes)


def check(model, kernels: Mapping[Path, Coded]) -> None:
  """Every kernel's codes are in the file, and no others; what the file does with them is for a run of it to check.

  Compared are counts of magnitudes, as kernels are laid out in another order, and a negative gain flips signs.

  Raises:
    EffjaxError: they are not.
  """
  key = lambda codes: tuple(np.bincount(np.abs(codes.ravel().astype(int)), minlength=129))
  integers = [t for t in model.subgraphs[0].tensors if flatbuffer.quantization(t) is not None]
  stored = {key(tensors.codes(model, t)) for t in integers}
  wanted = {path: key(kernel.codes) for path, kernel in kernels.items()}
  if missing := [path for path, each in wanted.items() if each not in stored]:
    raise EffjaxError(f'float_tflite: the file has not the trained codes of {missing}: fn computes with other values, '
                      'or not with them at all; leave out their facts')
  if stored - set(wanted.values()):
    raise EffjaxError('float_tflite: the file has codes that are those of no leaf: the converter rounded anew')


def _coded(path, value, fact) -> Coded:
  scale, (codes, bits) = np.asarray(fact.scale, np.float32), codes_of('float_tflite', path, value, fact)
  shape = (1,) * (value.ndim - scale.ndim) + scale.shape
  axes = [axis for axis, size in enumerate(shape) if size > 1]
  if len(axes) > 1:
    raise EffjaxError(f'float_tflite: {path!r} has scales of shape {scale.shape}, wanted them along one axis: the '
                      'file stores one scale for each channel')
  return Coded(codes.astype(np.int8), 4 if bits <= 4 else 8, scale.ravel(), axes[0] if axes else None)
