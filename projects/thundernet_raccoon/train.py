"""ThunderNet on photographs of raccoons: `python train.py --data-dir DIR`; DIR holds the prepared set `raccoon`."""
import argparse
import os
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax.data.source import permutation
from effjax.layers.fast import fast
from effjax.models import create
from effjax.models.detection import area, average_precision, clip, detect, two_stage_losses
from effjax.train.memory import keep_memory

SIZE, STORED = 128, 160  # of what the network sees, and of what it is cut from
SCALES = (32, 64, 96, 128)
LEFT, LEAST = .3, .6  # of a box's area that must be left in a cut, and of a cut's sides in the photograph's


class Part(NamedTuple):
  """images: uint8 [n, s, s, 3]. boxes: float32 [n, m, 4], from 0 to 1, padded with boxes of no area."""
  images: np.ndarray
  boxes: np.ndarray


def load(data_dir, split) -> Part:
  """A split of the prepared set, decoded and resized to squares; TensorFlow is not needed."""
  import tensorflow_datasets
  from PIL import Image
  records = list(tensorflow_datasets.data_source('raccoon', split=split, data_dir=data_dir))
  images = [np.asarray(Image.fromarray(record['image']).resize((STORED, STORED), Image.BILINEAR)) for record in records]
  found = [np.asarray(record['objects']['bbox'], np.float32) for record in records]
  boxes = np.zeros((len(records), max(map(len, found)), 4), np.float32)
  for row, each in zip(boxes, found):
    row[:len(each)] = each
  return Part(np.stack(images), boxes)


def network(width=1.):
  return create('thundernet_snet49', num_classes=1, width=width, scales=SCALES, before=200, after=32)


def normalised(images):
  return images.astype(jnp.float32) / 127.5 - 1


def seen(images):
  """What the network sees of stored images: all of them, smaller."""
  return jax.image.resize(normalised(images), (len(images), SIZE, SIZE, 3), 'linear')


def cut(key, image, boxes):
  """A random part of a photograph, mirrored or not, of random brightness; boxes in pixels, and which are there."""
  keys = jax.random.split(key, 4)
  sides = jax.random.uniform(keys[0], (2,), minval=LEAST)
  start = jax.random.uniform(keys[1], (2,)) * (1 - sides)
  scale = SIZE / (sides * image.shape[0])
  part = jax.image.scale_and_translate(normalised(image), (SIZE, SIZE, 3), (0, 1), scale,
                                       -start * SIZE / sides, 'linear')
  part = (part + 1) * jax.random.uniform(keys[2], minval=.6, maxval=1.4) - 1
  moved = (boxes.reshape(-1, 2, 2) - start[None, None]) / sides[None, None] * SIZE
  moved = moved.reshape(-1, 4)
  inside = clip(moved, (SIZE, SIZE))
  flipped = jnp.stack([inside[:, 0], SIZE - inside[:, 3], inside[:, 2], SIZE - inside[:, 1]], -1)
  mirror = jax.random.bernoulli(keys[3])
  valid = (area(moved) > 0) & (area(inside) > LEFT * area(moved))
  return jnp.where(mirror, part[:, ::-1], part), jnp.where(mirror, flipped, inside), valid


def fit(net, part, options):
  """Variables of the net after `options.steps` of AdamW with a one-cycle rate."""
  key = jax.random.key(options.seed)
  variables = jax.jit(lambda key: net.init(key, seen(jnp.asarray(part.images[:1])), False))(key)
  rate = optax.schedules.cosine_onecycle_schedule(options.steps, options.rate, pct_start=.2)
  optimizer = optax.chain(optax.clip_by_global_norm(5.), optax.adamw(rate, weight_decay=options.decay))
  step, batch = stepper(net, optimizer, key), batches(part, options)
  state, parts = (variables['params'], variables['batch_stats'], optimizer.init(variables['params'])), []
  for i in range(options.steps):
    state, losses = step(i, state, *batch(i))
    parts.append(losses)
    if (i + 1) % options.every == 0:
      means = np.mean(parts[-options.every:], 0)
      print(f'step {i + 1}: losses {" ".join(f"{mean:.3f}" for mean in means)}, sum {means.sum():.3f}', flush=True)
  return {'params': state[0], 'batch_stats': state[1]}


def stepper(net, optimizer, key):
  """The compiled `step(i, state, images, boxes) -> state, losses`."""
  forward = fast(lambda params, stats, x: net.apply({'params': params, 'batch_stats': stats}, x, True,
                                                    mutable=['batch_stats']))

  def loss(params, stats, key, images, boxes, valid):
    found, new = forward(params, stats, images)
    losses = jnp.stack(two_stage_losses(key, found, boxes, jnp.zeros(valid.shape, jnp.int32), valid))
    return losses.sum(), (new['batch_stats'], losses)

  @jax.jit
  def step(i, state, images, boxes):
    params, stats, slots = state
    cutting, drawing = jax.random.split(jax.random.fold_in(key, i))
    images, boxes, valid = jax.vmap(cut)(jax.random.split(cutting, len(images)), images, boxes)
    value_and_grad = jax.value_and_grad(loss, has_aux=True)
    (_, (stats, losses)), gradient = value_and_grad(params, stats, drawing, images, boxes, valid)
    updates, slots = optimizer.update(gradient, slots, params)
    return (optax.apply_updates(params, updates), stats, slots), losses

  return step


def batches(part, options):
  """`step -> images, boxes`, shuffled anew in every epoch."""
  size = options.batch_size

  def batch(i):
    epoch, position = divmod(i, len(part.images) // size)
    chosen = permutation(len(part.images), options.seed, epoch)[position * size:(position + 1) * size]
    return part.images[chosen], part.boxes[chosen]

  return batch


def objects(part):
  """The boxes of every image that are there."""
  return [boxes[(boxes[:, 2:] > boxes[:, :2]).all(-1)] for boxes in part.boxes]


def evaluated(predict, part, size=20):
  """AP50 of `predict(images) -> boxes in pixels, scores`, boxes of score 0 being none."""
  found, scores = [], []
  for start in range(0, len(part.images), size):
    for boxes, score in zip(*map(np.asarray, predict(jnp.asarray(part.images[start:start + size])))):
      found.append(boxes[score > 0] / SIZE)
      scores.append(score[score > 0])
  return average_precision(found, scores, objects(part))


def predictor(net, variables):
  """The compiled `images -> boxes, scores` of stored images."""
  return jax.jit(lambda images: detect(net.apply(variables, seen(images), False), (SIZE, SIZE), 20)[:2])


def constant(part):
  """The prediction that looks at nothing: the mean box of a part."""
  mean = np.concatenate(objects(part)).mean(0)
  return lambda images: (np.tile(mean * SIZE, (len(images), 1, 1)), np.ones((len(images), 1)))


def main(options):
  start, net = time.time(), network()
  train, test = load(options.data_dir, 'train'), load(options.data_dir, 'test')
  variables = fit(net, train, options)
  trained = time.time() - start
  print(f'AP50 of ThunderNet-SNet49: test {100 * evaluated(predictor(net, variables), test):.1f} %, '
        f'train {100 * evaluated(predictor(net, variables), train):.1f} %')
  print(f'AP50 of the mean box of train, on test: {100 * evaluated(constant(train), test):.1f} %')
  print(f'{sum(leaf.size for leaf in jax.tree.leaves(variables["params"])):,} parameters; training {trained:.0f} s, '
        f'in all {time.time() - start:.0f} s, load at the end {os.getloadavg()[0]:.1f}')


if __name__ == '__main__':
  keep_memory()
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data-dir', type=pathlib.Path, help='where TensorFlow Datasets keeps raccoon')
  parser.add_argument('--steps', type=int, default=1000)
  parser.add_argument('--batch-size', type=int, default=16)
  parser.add_argument('--rate', type=float, default=2e-3, help='the highest; default %(default)s')
  parser.add_argument('--decay', type=float, default=1e-4, help='of weights')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--every', type=int, default=50, help='steps between lines')
  main(parser.parse_args())
