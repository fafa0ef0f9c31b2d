"""Test models for `effjax.graph`: real structures, small widths, random weights, in five ways of writing JAX.

Each module has a table `MODELS`: name -> function without arguments that builds a `Model`. Widths differ where they
can, so that a count belongs to one layer.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Model(NamedTuple):
  """`fn(params, *args)`; `rebatch(n)` gives args of batch size n."""
  fn: Callable
  params: Any
  args: tuple
  rebatch: Callable[[int], tuple]


def model(fn: Callable, params: Any, *args: Any, out: int = -1) -> Model:
  """A model whose parameters (arrays, or their shapes) are drawn anew; `out` is the output axis of its weights."""
  rebatch = lambda n: jax.tree.map(lambda x: np.resize(x, (n, *x.shape[1:])), args)
  return Model(fn, fill(params, out), args, rebatch)


def fill(shapes: Any, out: int = -1, seed: int = 0) -> Any:
  """Random values: none is zero or one, variances and scales are positive, and sums keep their size."""
  rng = np.random.default_rng(seed)

  def draw(w):
    if not jnp.issubdtype(getattr(w, 'dtype', bool), jnp.floating):
      return jnp.zeros(w.shape, w.dtype) if hasattr(w, 'dtype') else w
    if sum(n > 1 for n in w.shape) < 2:
      return jnp.asarray(rng.uniform(.3, 1., w.shape), w.dtype)
    return jnp.asarray(rng.normal(size=w.shape) / np.sqrt(np.prod(w.shape) / w.shape[out]), w.dtype)
  return jax.tree.map(draw, shapes)


def images(size: int = 16, channels: int = 3, batch: int = 2) -> np.ndarray:
  return np.random.default_rng(1).normal(size=(batch, size, size, channels)).astype(np.float32)


def sequence(length: int = 5, features: int = 3, batch: int = 2) -> np.ndarray:
  return np.random.default_rng(2).normal(size=(batch, length, features)).astype(np.float32)


def tokens(length: int = 6, vocabulary: int = 11, batch: int = 2) -> np.ndarray:
  return np.random.default_rng(3).integers(0, vocabulary, (batch, length)).astype(np.int32)
