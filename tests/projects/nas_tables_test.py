"""The project on a table that is small enough to enumerate."""
import importlib.util
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

PATH = pathlib.Path(__file__).parents[2] / 'projects/nas_tables/search.py'
spec = importlib.util.spec_from_file_location('nas_tables', PATH)
project = importlib.util.module_from_spec(spec)
spec.loader.exec_module(project)
ARCH = np.array(list(itertools.product(range(3), repeat=4)))
VALUES = np.random.default_rng(0).uniform(50., 90., len(ARCH))


def test_the_expectation_and_its_exact_gradient_are_enumerated():
  here = project.table('small', ARCH[::-1], VALUES[::-1], VALUES[::-1])
  logits = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
  p = np.exp(np.float64(logits)) / np.exp(np.float64(logits)).sum(-1, keepdims=True)
  each = np.prod(p[np.arange(4), ARCH], -1)
  mean = each @ VALUES
  np.testing.assert_allclose(project.expected(here.accuracy)(jnp.asarray(p, jnp.float32)), mean - VALUES.mean(), rtol=1e-4)
  chosen = np.eye(3)[ARCH]  # d log P / d logits = one-hot - p
  want = np.einsum('n,nek->ek', each * VALUES, chosen - p)
  found = project.estimators(here)['exact (softmax)'](jnp.asarray(logits), None, jnp.int32(0), jax.random.key(0))[0]
  np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-4)


def test_ascent_along_the_exact_gradient_finds_a_local_best():
  here = project.table('small', ARCH, VALUES, VALUES)
  with jax.numpy_dtype_promotion('standard'):  # as optax wants it
    index = project.ascents(project.estimators(here)['exact (softmax)'], here, 2)
  assert index[0] == index[1]
  neighbours = [i for i, arch in enumerate(ARCH) if (arch != ARCH[index[0]]).sum() == 1]
  assert VALUES[index[0]] >= VALUES[neighbours].max()
