"""The project's steps on pictures of one bright rectangle each."""
import argparse
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

PATH = pathlib.Path(__file__).parents[2] / 'projects' / 'thundernet_raccoon' / 'train.py'
spec = importlib.util.spec_from_file_location('thundernet_raccoon', PATH)
project = importlib.util.module_from_spec(spec)
spec.loader.exec_module(project)


def rectangles(seed, count=8):
  """Bright on dark; every other picture has a second box that is none."""
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 60, (count, project.STORED, project.STORED, 3))
  boxes = np.zeros((count, 2, 4), np.float32)
  for image, each in zip(images, boxes):
    low, high = rng.integers(0, 60, 2), rng.integers(90, project.STORED, 2)
    image[low[0]:high[0], low[1]:high[1]] += 160
    each[0] = np.concatenate([low, high]) / project.STORED
  return project.Part(images.astype(np.uint8), boxes)


def test_a_cut_moves_its_boxes_along():
  part = rectangles(0)
  for i in range(4):
    image, boxes, valid = jax.jit(project.cut)(jax.random.key(i), jnp.asarray(part.images[i]), jnp.asarray(part.boxes[i]))
    assert valid.tolist() == [True, False]
    y0, x0, y1, x1 = np.round(boxes[0]).astype(int)
    bright = np.asarray(image[..., 0] > np.median(image[y0:y1, x0:x1, 0]) - .4)
    inside = np.zeros_like(bright)
    inside[y0:y1, x0:x1] = True
    assert (bright & inside).sum() / (bright | inside).sum() > .9


def test_average_precision_of_known_predictions():
  part = rectangles(1)
  order = iter(range(len(part.boxes)))
  exact = lambda images: (project.SIZE * np.stack([part.boxes[next(order)] for _ in images]), np.tile([1., 0.], (len(images), 1)))
  assert project.evaluated(exact, part, size=3) == 1
  assert 0 <= project.evaluated(project.constant(part), part, size=3) <= 1


@pytest.mark.slow
def test_a_few_steps(capsys):
  options = argparse.Namespace(steps=6, batch_size=4, rate=1e-3, decay=1e-4, seed=0, every=2)
  net = project.network().copy(features=(8, 16, 32), depths=(1, 1, 1), stem=8, head=0, squeeze=1, rpn=16, hidden=16,
                               scales=(64, 96), before=20, after=8)
  with jax.numpy_dtype_promotion('standard'):  # optax
    variables = project.fit(net, rectangles(0), options)
  losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
  assert len(losses) == 3 and losses[2] < losses[0]
  assert 0 <= project.evaluated(project.predictor(net, variables), rectangles(1, 5), size=5) <= 1
