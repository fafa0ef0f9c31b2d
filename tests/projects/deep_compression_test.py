"""The three stages on handwritten digits, in few steps."""
import argparse
import importlib.util
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import tree

PATH = pathlib.Path(__file__).parents[2] / 'projects' / 'deep_compression' / 'train.py'
spec = importlib.util.spec_from_file_location('deep_compression', PATH)
project = importlib.util.module_from_spec(spec)
spec.loader.exec_module(project)


def options(**changed):
  known = dict(network='lenet300', data_dir=None, steps=150, float_steps=None, rounds=2, keep=.1, bits=4, rate=3e-3,
               batch_size=64, seed=0, limit=None, out='')
  return argparse.Namespace(**known | changed)


@pytest.fixture(autouse=True)
def standard_promotion():
  with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):  # optax, and Flax's biases
    yield


def test_the_three_stages(tmp_path, capsys):
  file = tmp_path / 'net.bin'
  assert project.main(options(out=str(file))) == 0  # the file holds the same network
  lines = capsys.readouterr().out.splitlines()
  accuracies = [float(re.search(r'accuracy ([\d.]+) %', line)[1]) for line in lines[:4]]
  sizes = [int(re.search(r'([\d,]+) bytes', line)[1].replace(',', '')) for line in lines[:4]]
  assert accuracies[0] > 90 and min(accuracies[1:]) > accuracies[0] - 10
  assert accuracies[3] == accuracies[2]
  assert sizes[0] == 4 * (64 * 300 + 300 * 100 + 100 * 10 + 410) and sizes[0] > sizes[1] > sizes[2]
  assert file.stat().st_size == sizes[3] < sizes[0] / 12
  assert lines[-1].startswith('the file holds the same network bit for bit: True')


def test_pruned_weights_and_their_moments_stay_zero():
  given = options(steps=20)
  here = project.model(given)
  params = here.net.init(jax.random.key(0), jnp.zeros((1, *here.train.shape)), False)['params']
  masks = project.largest(params, .1)
  for path, mask in tree.leaves(masks).items():
    assert float(mask.mean()) == pytest.approx(.1, abs=2e-3) if path.endswith('kernel') else (mask == 1).all()
  start = jax.tree.map(jnp.multiply, params, masks)
  trained, _, slots = project.fit(here, start, {}, 20, 1e-3, 0, masks=masks)
  for each in (trained, slots[0].mu, slots[0].nu):
    for mask, x in zip(jax.tree.leaves(masks), jax.tree.leaves(each)):
      np.testing.assert_array_equal(np.asarray(x)[np.asarray(mask) == 0], 0.)
  assert all((a != b).any() for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(start)))


def test_the_largest_weights_are_kept():
  w = {'kernel': jnp.array([[3., -.5], [-4., 1.]]), 'bias': jnp.zeros(2)}
  np.testing.assert_array_equal(project.largest(w, .5)['kernel'], [[1., 0.], [1., 0.]])


def test_residual_networks_have_their_statistics_in_the_file(tmp_path):
  given = options(network='resnet20', out=str(tmp_path / 'net.bin'))
  net = project.models.create('resnet20_cifar', depths=(1, 1, 1))
  variables = jax.jit(lambda key: net.init(key, jnp.zeros((1, 32, 32, 3)), False))(jax.random.key(0))
  stats = {'batch_stats': variables['batch_stats']}
  masks = project.largest(variables['params'], .2)
  halves = lambda path, w: .5 * jnp.sign(w)
  params = tree.map_at(halves, jax.tree.map(jnp.multiply, variables['params'], masks), tree.select(project.KERNELS, masks))
  sizes, *found = project.code(None, params, stats, given)
  assert project.same([params, stats], found)
  assert (tmp_path / 'net.bin').stat().st_size == project.quantize.total_bytes(sizes) < project.floats(variables) / 8
  assert project.density(params) == pytest.approx(.2, abs=1e-2)
