"""Deep Compression in three stages, prune, share, code: `python train.py`, or `--network resnet20 --data-dir DIR`.

LeNet-300-100 learns scikit-learn's handwritten digits as they are, 8x8 pixels (64-300-100-10), not MNIST's.
"""
import argparse
import os
import pathlib
import time
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import data, models, quantize, tree
from effjax.data.source import joined, subset
from effjax.errors import EffjaxError
from effjax.reparam import at
from effjax.train.memory import keep_memory

KERNELS = '.*kernel'
EVALUATED = 256  # images at once


class LeNet300(nn.Module):
  """Two hidden layers of 300 and 100. LeCun, Bottou, Bengio, Haffner 1998; as the paper's."""
  classes: int = 10

  @nn.compact
  def __call__(self, x, train):
    x = x.reshape(len(x), -1)
    for features in (300, 100):
      x = nn.relu(nn.Dense(features)(x))
    return nn.Dense(self.classes)(x)


class Model(NamedTuple):
  """A network, what it is trained on, and how its images are augmented."""
  net: nn.Module
  train: data.Source
  test: data.Source
  augment: dict
  batch_size: int


def model(options) -> Model:
  """The network and its data: nothing is decided on held-out images, so all but the test images train."""
  name = 'digits' if options.network == 'lenet300' else 'cifar10'
  whole = data.load(name, options.data_dir)
  net = LeNet300() if name == 'digits' else models.create('resnet20_cifar')
  limit = lambda part: subset(part, part.name, np.arange(min(part.size, options.limit or part.size)))
  how = data.standard(name, whole.train.shape) if name == 'cifar10' else {'pad': 0, 'flip': False}
  return Model(net, limit(joined(whole.train.name, whole.train, whole.validation)), limit(whole.test), how,
               options.batch_size)


def fit(here, trained, stats, steps, rate, seed, weights_of=lambda trained: trained, masks=None):
  """What trains, and BatchNorm's statistics, after `steps` of Adam on a rate that falls to 0, moments from 0.

  Args:
    weights_of: the network's parameters of what trains.
    masks: a tree as what trains: where it is 0, gradients are 0, and so are moments and updates.
  """
  optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
  step, batch = stepper(here, weights_of, optimizer, masks), data.batches(here.train, here.batch_size, seed)
  state = trained, stats, optimizer.init(trained)
  for i in range(steps):
    drawn = batch(i)
    state = step(jax.random.fold_in(jax.random.key(seed), i), state, drawn['image'], drawn['label'])
  return state


def stepper(here, weights_of, optimizer, masks):
  """The compiled `step(key, state, image, label) -> state`: what trains, statistics, the optimizer's state."""
  masked = lambda x: x if masks is None else jax.tree.map(jnp.multiply, x, masks)

  def loss(trained, stats, keys, image, label):
    image = data.normalize(data.augment(keys, image, **here.augment))
    logits, new = here.net.apply({'params': weights_of(trained)} | stats, image, True, mutable=['batch_stats'])
    return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), new

  @jax.jit
  def step(key, state, image, label):
    trained, stats, slots = state
    gradient, stats = jax.grad(loss, has_aux=True)(trained, stats, jax.random.split(key, len(label)), image, label)
    updates, slots = optimizer.update(masked(gradient), slots, trained)
    return optax.apply_updates(trained, updates), stats, slots

  return step


def accuracy(here, params, stats):
  """On all test images."""
  predict = jax.jit(lambda x: here.net.apply({'params': params} | stats, data.normalize(x), False).argmax(-1))
  right = [np.asarray(predict(batch['image']) == batch['label'])[batch['mask']]
           for batch in data.evaluation_batches(here.test, min(here.test.size, EVALUATED))]
  return float(np.concatenate(right).mean())


def largest(params, keep):
  """Masks: 1 for the share `keep` of each kernel that is largest in magnitude, and for all that is no kernel."""
  def mask(path, w):
    magnitude = jnp.abs(kernels[path])
    return (magnitude >= jnp.sort(magnitude.ravel())[-max(1, round(keep * w.size))]).astype(w.dtype)

  kernels = tree.leaves(params)
  return tree.map_at(mask, jax.tree.map(jnp.ones_like, params), tree.select(KERNELS, params))


def prune(here, params, stats, options):
  """Stage 1: the smallest weights become 0, the rest retrains with the masks held; again with fewer, down to `keep`."""
  for i in range(1, options.rounds + 1):
    masks = largest(params, options.keep**(i / options.rounds))
    params = jax.tree.map(jnp.multiply, params, masks)
    params, stats, _ = fit(here, params, stats, options.steps, options.rate / 2, options.seed + i, masks=masks)
  return params, stats


def share(here, params, stats, options):
  """Stage 2: weights of 2^bits values, found by k-means, then trained; zeros stay."""
  sharing = at(KERNELS, quantize.shared(options.bits))
  slots = sharing.init(jax.random.key(options.seed), params)
  weights_of = lambda trained: sharing.apply(*trained, slots.state, None)
  trained, stats, _ = fit(here, (slots.theta, slots.phi), stats, options.steps, options.rate / 10, options.seed + 99,
                          weights_of)
  return jax.jit(weights_of)(trained), stats


def code(here, params, stats, options):
  """Stage 3: one file, and the network that is read from it."""
  file = pathlib.Path(options.out)
  sizes = quantize.save_coded(file, {'params': params} | stats)
  found = quantize.load_coded(file, {'params': params} | stats)
  return sizes, found.pop('params'), found


def same(a, b):
  """Whether two trees are the same bit for bit."""
  bits = lambda x: (np.asarray(x).dtype, np.shape(x), np.asarray(x).tobytes())
  return jax.tree.structure(a) == jax.tree.structure(b) and all(map(
      lambda x, y: bits(x) == bits(y), jax.tree.leaves(a), jax.tree.leaves(b)))


def sparse(params, stats, bits=32):
  """Bytes with codes of fixed lengths: an index of 8 (convolutions) or 5 bits and a value of `bits` for each weight."""
  kernels, total = {path: tree.leaves(params)[path] for path in tree.select(KERNELS, params)}, 0
  for w in kernels.values():
    index = 8 if w.ndim == 4 else 5
    entries = len(quantize.sparse_index(np.asarray(w != 0).ravel().astype(np.uint8), index)[0])
    total += -(-entries * (index + bits) // 8) + (4 * 2**bits if bits < 32 else 0)
  return total + floats((params, stats)) - floats(kernels)


def floats(tree):
  """Bytes of all arrays in float32."""
  return 4 * sum(leaf.size for leaf in jax.tree.leaves(tree))


def main(options):
  start, here = time.time(), model(options)
  variables = jax.jit(lambda key: here.net.init(key, jnp.zeros((1, *here.train.shape)), False))(
      jax.random.key(options.seed))
  stats = {name: part for name, part in variables.items() if name != 'params'}
  params, stats, _ = fit(here, variables['params'], stats, options.float_steps or options.steps, options.rate,
                         options.seed)
  whole = report(here, 'float', params, stats, floats((params, stats)))
  params, stats = prune(here, params, stats, options)
  report(here, f'pruned to {100 * density(params):.1f} %', params, stats, sparse(params, stats), whole)
  params, stats = share(here, params, stats, options)
  report(here, f'shared, {options.bits} bits', params, stats, sparse(params, stats, options.bits), whole)
  sizes, *found = code(here, params, stats, options)
  report(here, 'coded, from the file', *found, quantize.total_bytes(sizes), whole)
  equal = same([params, stats], found)
  print(parts(sizes))
  print(f'the file holds the same network bit for bit: {equal}; {time.time() - start:.0f} s, '
        f'load {os.getloadavg()[0]:.1f}')
  return 0 if equal else 1


def density(params):
  """The share of weights in kernels that are not 0."""
  kernels = [tree.leaves(params)[path] for path in tree.select(KERNELS, params)]
  return sum(int((w != 0).sum()) for w in kernels) / sum(w.size for w in kernels)


def report(here, name, params, stats, size, whole=None):
  """Prints a stage, and returns its bytes."""
  print(f'{name}: test accuracy {100 * accuracy(here, params, stats):.2f} %, {size:,} bytes'
        + (f', {whole / size:.1f} times smaller' if whole else ''))
  return size


def parts(sizes):
  """A line with the bytes of the file's parts."""
  sums = {name: sum(getattr(each, name) for each in sizes.values()) for name in quantize.Sizes._fields}
  return 'of the file: ' + ', '.join(f'{name.replace("_", " ")} {size:,}' for name, size in sums.items())


if __name__ == '__main__':
  keep_memory()
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--network', choices=('lenet300', 'resnet20'), default='lenet300')
  parser.add_argument('--data-dir', help='where TensorFlow Datasets keeps cifar10, for resnet20')
  parser.add_argument('--steps', type=int, default=600, help='of each round of pruning, and of sharing')
  parser.add_argument('--float-steps', type=int, help='of the float training; default: as --steps')
  parser.add_argument('--rounds', type=int, default=5, help='of pruning and retraining')
  parser.add_argument('--keep', type=float, default=.08, help='share of weights left at the end; default %(default)s')
  parser.add_argument('--bits', type=int, default=5, help='of an index into the shared values')
  parser.add_argument('--rate', type=float, default=2e-3, help='of Adam; half for pruning, a tenth for sharing')
  parser.add_argument('--batch-size', type=int, default=64)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--limit', type=int, metavar='N', help='train and test on N images only')
  parser.add_argument('--out', default='compressed.bin', metavar='FILE')
  try:
    parser.exit(main(parser.parse_args()))
  except EffjaxError as error:
    parser.exit(2, f'{error}\n')
