"""ESPNet on CamVid's road scenes: `python train.py --data-dir DIR`; DIR holds the prepared set `camvid`."""
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
from effjax.errors import EffjaxError
from effjax.models.espnet import ESPNet
from effjax.models.segmentation import confusion, mean_iou, pixel_accuracy, pixel_cross_entropy
from effjax.train.memory import keep_memory

CLASSES = 11  # sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist; 11 is unlabelled
CONSTANT = 1.1  # of the class weights, as in the authors' code


class Part(NamedTuple):
  """images: uint8 [n, h, w, 3]. labels: int32 [n, h, w], 0 to 10, else unlabelled."""
  images: np.ndarray
  labels: np.ndarray


def load(data_dir, split) -> Part:
  """A split of the prepared set, decoded; TensorFlow is not needed."""
  import tensorflow_datasets
  try:
    records = tensorflow_datasets.data_source('camvid', split=split, data_dir=data_dir)
  except tensorflow_datasets.core.registered.DatasetNotFoundError as error:
    raise EffjaxError(f'camvid is not in {str(data_dir)!r}, nor made by TensorFlow Datasets: prepare it, and give the '
                      'folder that holds camvid/1.0.0 as --data-dir') from error
  images, labels = zip(*((record['image'], record['segmentation_mask'][..., 0]) for record in records))
  return Part(np.stack(images), np.stack(labels).astype(np.int32))


def frequencies(part):
  """The share of each class in the labelled pixels."""
  counts = np.bincount(part.labels[part.labels < CLASSES], minlength=CLASSES)
  return counts / counts.sum()


def class_weights(part):
  """`1 / log(1.1 + frequency)`: rare classes count more."""
  return jnp.asarray(1 / np.log(CONSTANT + frequencies(part)), jnp.float32)


def flipped(key, images, labels):
  """Each example mirrored with probability 1/2."""
  mirror = jax.random.bernoulli(key, shape=(images.shape[0],))
  flip = lambda x: jnp.where(mirror.reshape(-1, *(1,) * (x.ndim - 1)), x[:, :, ::-1], x)
  return flip(images), flip(labels)


def normalised(images):
  return images.astype(jnp.float32) / 127.5 - 1


def fit(net, part, options):
  """Variables of the net after `options.steps` of AdamW with a one-cycle rate."""
  key = jax.random.key(options.seed)
  variables = jax.jit(lambda key: net.init(key, normalised(jnp.asarray(part.images[:1])), False))(key)
  rate = optax.schedules.cosine_onecycle_schedule(options.steps, options.rate, pct_start=.2)
  optimizer = optax.adamw(rate, weight_decay=options.decay)
  step, batch = stepper(net, optimizer, class_weights(part), key), batches(part, options)
  state, losses = (variables['params'], variables['batch_stats'], optimizer.init(variables['params'])), []
  for i in range(options.steps):
    state, loss = step(i, state, *batch(i))
    losses.append(loss)
    if (i + 1) % options.every == 0:
      print(f'step {i + 1}: loss {np.mean(losses[-options.every:]):.3f}')
  return {'params': state[0], 'batch_stats': state[1]}


def stepper(net, optimizer, weights, key):
  """The compiled `step(i, state, images, labels) -> state, loss`."""
  def loss(params, stats, images, labels):
    variables = {'params': params, 'batch_stats': stats}
    logits, new = net.apply(variables, normalised(images), True, mutable=['batch_stats'])
    return pixel_cross_entropy(logits, labels, weights), new['batch_stats']

  @jax.jit
  def step(i, state, images, labels):
    params, stats, slots = state
    images, labels = flipped(jax.random.fold_in(key, i), images, labels)
    (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(params, stats, images, labels)
    updates, slots = optimizer.update(gradient, slots, params)
    return (optax.apply_updates(params, updates), stats, slots), value

  return step


def batches(part, options):
  """`step -> images, labels`, shuffled anew in every epoch."""
  size = options.batch_size

  def batch(i):
    epoch, position = divmod(i, len(part.images) // size)
    chosen = permutation(len(part.images), options.seed, epoch)[position * size:(position + 1) * size]
    return part.images[chosen], part.labels[chosen]

  return batch


def evaluated(predict, part, size=16):
  """The confusion of `predict(images) -> classes` over a part."""
  total = np.zeros((CLASSES, CLASSES), np.int32)
  for start in range(0, len(part.images), size):
    images, labels = (jnp.asarray(x[start:start + size]) for x in part)
    total += np.asarray(confusion(predict(images), labels, CLASSES))
  return jnp.asarray(total)


def figures(name, table):
  return f'{name}: mean IoU {100 * mean_iou(table):.1f} %, pixel accuracy {100 * pixel_accuracy(table):.1f} %'


def main(options):
  start, net = time.time(), ESPNet(CLASSES, depths=(2, 3))
  train, test = load(options.data_dir, 'train'), load(options.data_dir, options.test)
  variables = fit(net, train, options)
  trained, most = time.time() - start, int(frequencies(train).argmax())
  predict = jax.jit(lambda images: net.apply(variables, normalised(images), False).argmax(-1).astype(jnp.int32))
  print(figures(f'{options.test}, ESPNet', evaluated(predict, test)))
  constant = evaluated(lambda images: jnp.full(images.shape[:3], most, jnp.int32), test)
  print(figures(f'{options.test}, class {most} everywhere', constant))
  print(f'{sum(leaf.size for leaf in jax.tree.leaves(variables["params"])):,} parameters; training {trained:.0f} s, '
        f'in all {time.time() - start:.0f} s, {time.process_time():.0f} s of all CPUs; load {os.getloadavg()[0]:.1f}')


if __name__ == '__main__':
  keep_memory()
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data-dir', type=pathlib.Path, help='where TensorFlow Datasets keeps camvid')
  parser.add_argument('--steps', type=int, default=900)
  parser.add_argument('--batch-size', type=int, default=8)
  parser.add_argument('--rate', type=float, default=5e-3, help='the highest; default %(default)s')
  parser.add_argument('--decay', type=float, default=1e-4, help='of weights')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--every', type=int, default=50, help='steps between lines')
  parser.add_argument('--test', default='test', choices=('validation', 'test'), help='what is reported')
  try:
    main(parser.parse_args())
  except EffjaxError as error:
    parser.exit(2, f'{error}\n')
