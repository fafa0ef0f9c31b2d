"""The project's steps on pictures of two halves, whose classes are their colours."""
import argparse
import importlib.util
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import Conv, ConvBN

PATH = pathlib.Path(__file__).parents[2] / 'projects' / 'espnet_camvid' / 'train.py'
spec = importlib.util.spec_from_file_location('espnet_camvid', PATH)
project = importlib.util.module_from_spec(spec)
spec.loader.exec_module(project)


class Tiny(nn.Module):
  """Two layers instead of ESPNet, which takes long to compile and has tests of its own."""

  @nn.compact
  def __call__(self, x, train):
    return Conv(project.CLASSES, 1, name='classifier')(ConvBN(8, name='stem')(x, train))


def halves(seed, count=8):
  """Dark above bright, the border at random; a column is unlabelled."""
  rng = np.random.default_rng(seed)
  labels = np.stack([np.repeat(np.where(np.arange(16) < rng.integers(4, 12), 0, 5)[:, None], 24, 1) for _ in range(count)])
  images = np.where(labels[..., None] == 0, 60, 190) + rng.integers(-20, 20, (*labels.shape, 3))
  labels[:, :, 3] = 11
  return project.Part(images.astype(np.uint8), labels.astype(np.int32))


def test_a_few_steps(capsys):
  options = argparse.Namespace(steps=30, batch_size=4, rate=1e-2, decay=1e-4, seed=0, every=10)
  net = Tiny()
  with jax.numpy_dtype_promotion('standard'):  # optax
    variables = project.fit(net, halves(0), options)
  losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
  assert len(losses) == 3 and losses[2] < losses[0]
  test = halves(1, 3)
  predict = jax.jit(lambda x: net.apply(variables, project.normalised(x), False).argmax(-1))
  table = project.evaluated(predict, test, size=3)
  assert table.sum() == 3 * 16 * 23
  constant = project.evaluated(lambda x: jnp.full(x.shape[:3], 5, jnp.int32), test)
  assert project.pixel_accuracy(table) > project.pixel_accuracy(constant)


def test_weights_of_rare_classes_are_larger():
  part = halves(0)
  share = project.frequencies(part)
  assert np.isclose(share.sum(), 1) and np.all(np.delete(share, [0, 5]) == 0)
  np.testing.assert_allclose(project.class_weights(part), 1 / np.log(1.1 + share), rtol=1e-6)


def test_a_folder_without_the_set(tmp_path):
  with pytest.raises(EffjaxError, match=r"camvid is not in '.*', nor made by TensorFlow Datasets: .* as --data-dir"):
    project.load(tmp_path, 'train')
