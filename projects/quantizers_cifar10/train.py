"""ResNet-20 on CIFAR-10 with the weights of each quantizer: `python train.py --data-dir DIR [--methods NAME ...]`.

A float network is trained for `--epochs`; from it every method, and float once more, trains for `--tune` epochs with
the same optimizer, batches and augmentation. Nothing is tuned and nothing is chosen by the test images; they are looked
at once, at the end, with the weights as deployed. First and last layer have 8 bits (LSQ) for all methods.
"""
import argparse
import functools
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import cost, data, graph, models, quantize
from effjax.reparam import Reparam, Slots, at, chain
from effjax.train.memory import keep_memory

RATE, TUNING_RATE, SCALES, DECAY = .1, .02, 1e-3, 5e-4  # peaks: momentum's, then; Adam's for what methods train


class Method(NamedTuple):
  """weights: the rule of all layers but the first and the last; activations: their quantizer, None for float."""
  weights: Callable | None = None
  activations: Callable | None = None


METHODS = {
    'float': Method(),
    'LSQ 8': Method(lambda: quantize.lsq(8)),
    'LSQ 8, activations 8': Method(lambda: quantize.lsq(8), quantize.lsq_plus),
    'LSQ 4': Method(lambda: quantize.lsq(4)),
    'LSQ 4, activations 4': Method(lambda: quantize.lsq(4), lambda: quantize.lsq_plus(4)),
    'LSQ 2': Method(lambda: quantize.lsq(2)),
    'uniform 8': Method(lambda: quantize.uniform(8)),
    'uniform 4': Method(lambda: quantize.uniform(4)),
    'ternary': Method(lambda: quantize.ternary(factor=.7)),
    'trained ternary': Method(quantize.trained_ternary),
    'BinaryConnect': Method(quantize.binary_connect),
    'XNOR-Net': Method(quantize.xnor),
    'DoReFa 4': Method(lambda: quantize.dorefa(4)),
    'APoT 4': Method(lambda: quantize.apot(4)),
    'CLIP-Q 4': Method(lambda: quantize.clip_q(.5, 4)),
    'shared 4': Method(lambda: quantize.shared(4)),
    'LSQ 4, PACT 4': Method(lambda: quantize.lsq(4), lambda: quantize.pact(4))}


class State(NamedTuple):
  """What training carries: trained is (theta, phi, ranges), memory the state of the rules."""
  trained: tuple
  memory: tuple
  stats: dict
  optimizer: optax.OptState


class Training(NamedTuple):
  """The compiled functions of a method, the same for every seed.

  start(variables, key) -> state; epoch(state, key) -> (state, loss); logits(state, images), facts(state): as deployed.
  """
  start: Callable
  epoch: Callable
  logits: Callable
  facts: Callable


def arrays(options):
  """{'train_image', 'train_label', 'test_image', 'test_label'}, decoded; kept in `--cache` for the next run."""
  if options.cache and options.cache.exists():
    return dict(np.load(options.cache))
  whole = data.load('cifar10', options.data_dir)
  every = lambda *parts: [part.fetch(np.arange(part.size)) for part in parts]
  parts = {'train': every(whole.train, whole.validation), 'test': every(whole.test)}
  found = {f'{name}_{key}': np.concatenate([part[key] for part in found]) for name, found in parts.items()
           for key in ('image', 'label')}
  if options.cache:
    np.savez(options.cache, **found)
  return found


def network():
  """ResNet-20: `fn(variables, x)` -> (logits, statistics of the batch)."""
  net = models.create('resnet20_cifar', num_classes=10)
  return net, lambda variables, x: net.apply(variables, x, True, mutable=['batch_stats'])


def reparam_of(method: Method) -> Reparam:
  """The rule on every kernel between the first and the last, which have 8 bits."""
  if method.weights is None:
    return chain()
  return chain(at('stage.*kernel', method.weights()), at('(stem|classifier).*kernel', quantize.lsq(8)))


def activations_of(method, fn, variables, x):
  """`quantize.activations`, or the function as it is."""
  if not method.activations:
    return lambda ranges, variables, x: fn(variables, x), {}
  return quantize.activations(fn, variables, x, quantizer=method.activations())


def optimizer(steps, rate):
  """Momentum for theta, Adam for phi and ranges, both on a cosine."""
  schedule = optax.cosine_decay_schedule(1., steps)
  decay = optax.add_decayed_weights(DECAY, lambda theta: jax.tree.map(lambda w: w.ndim > 1, theta))
  momentum = optax.chain(decay, optax.sgd(lambda step: rate * schedule(step), .9, nesterov=True))
  adam = optax.adam(lambda step: SCALES * schedule(step))
  return optax.partition({'theta': momentum, 'phi': adam}, ('theta', 'phi', 'phi'))


def training(method, setting, steps, rate, variables) -> Training:
  """Of `steps` steps; the variables are read for their shapes alone."""
  images, labels, batch_size = setting['train_image'], setting['train_label'], setting['batch_size']
  net, forward = network()
  infer = lambda variables, x: net.apply(variables, x, False)
  reparam, how = reparam_of(method), data.standard('cifar10', images.shape[1:])
  example = data.normalize(images[:batch_size])
  apply = activations_of(method, forward, variables, example)[0]
  apply_deployed = activations_of(method, infer, variables, example)[0]
  tx = optimizer(steps, rate)

  def start(variables, key):
    slots = jax.jit(reparam.init)(key, variables['params'])
    trained = slots.theta, slots.phi, activations_of(method, forward, variables, example)[1]
    return State(trained, slots.state, variables['batch_stats'], tx.init(trained))

  def loss(trained, state, batch, key):
    theta, phi, ranges = trained
    x = data.normalize(data.augment(jax.random.split(key, batch_size), images[batch], **how))
    weights = reparam.apply(theta, phi, state.memory, key)
    logits, new = apply(ranges, {'params': weights, 'batch_stats': state.stats}, x)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch])), new['batch_stats']

  def step(state, at):
    batch, key = at
    (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(state.trained, state, batch, key)
    change, optimizer = tx.update(gradient, state.optimizer, state.trained)
    return State(optax.apply_updates(state.trained, change), state.memory, stats, optimizer), value

  steps_of_epoch, several = repeated(step), len(images) // batch_size

  def epoch(state, key):
    order = jax.random.permutation(key, len(images))[:several * batch_size].reshape(several, batch_size)
    state, values = steps_of_epoch(state, (order, jax.random.split(key, several)))
    return state, values.mean()

  def logits(state, x):
    theta, phi, ranges = state.trained
    weights = reparam.apply(theta, phi, state.memory, None)
    return apply_deployed(ranges, {'params': weights, 'batch_stats': state.stats}, x)

  facts = lambda state: reparam.facts(Slots(*state.trained[:2], state.memory), True)
  return Training(start, epoch, jax.jit(logits), facts)


def repeated(step):
  """`(state, xs) -> (state, ys)` as of `lax.scan`; on a CPU a loop of compiled steps: within a scan XLA runs this
  network's dense convolutions there about 27 times slower."""
  if jax.default_backend() != 'cpu':
    return jax.jit(lambda state, xs: jax.lax.scan(step, state, xs))
  compiled = jax.jit(step)

  def run(state, xs):
    ys = []
    for i in range(len(jax.tree.leaves(xs)[0])):
      state, y = compiled(state, jax.tree.map(lambda x, i=i: x[i], xs))
      ys.append(y)
    return state, jax.tree.map(lambda *ys: jnp.stack(ys), *ys)
  return run


def accuracy(logits, state, images, labels):
  """Percent."""
  right = [np.asarray(logits(state, data.normalize(images[i:i + 500])).argmax(-1) == labels[i:i + 500])
           for i in range(0, len(images), 500)]
  return 100 * float(np.concatenate(right).mean())


def weight_bytes(facts, params, stats, shape):
  """What the weights take on the device, whose kernels read 4, 8 or 32 bits, with biases and scales."""
  net, _ = network()
  fn = lambda params, x: net.apply({'params': params, 'batch_stats': stats}, x, False)
  return int(cost.flash_bytes(graph.profile(fn, params, jnp.zeros((1, *shape))), facts))


def run(ready, setting, epochs, variables, key):
  """(trained variables, percent right, bytes of weights, seconds of the fastest epoch, last loss)."""
  state, times = ready.start(variables, key), []
  for i in range(epochs):
    begin = time.perf_counter()
    state, loss = jax.block_until_ready(ready.epoch(state, jax.random.fold_in(key, i)))
    times.append(time.perf_counter() - begin)
  right = accuracy(ready.logits, state, setting['test_image'], setting['test_label'])
  size = weight_bytes(ready.facts(state), variables['params'], state.stats, setting['train_image'].shape[1:])
  trained = {'params': state.trained[0], 'batch_stats': state.stats}
  return trained, right, size, min(times), float(loss)


def main(options):
  keep_memory()
  whole = arrays(options)
  setting = {name: jnp.asarray(values[:options.limit]) for name, values in whole.items()}
  setting['batch_size'] = options.batch_size
  print(f'{jax.devices()[0].device_kind}, {os.cpu_count()} cores; {len(setting["train_image"])} training and '
        f'{len(setting["test_image"])} test images, {options.epochs} and {options.tune} epochs', flush=True)
  found = {name: {'accuracy': [], 'seconds': []} for name in options.methods}
  net, steps = network()[0], len(setting['train_image']) // options.batch_size
  made = jax.jit(lambda key: net.init(key, jnp.zeros((1, 32, 32, 3)), False))
  float_training = training(METHODS['float'], setting, options.epochs * steps, RATE, made(jax.random.key(0)))
  ready = functools.cache(lambda name: training(METHODS[name], setting, options.tune * steps, TUNING_RATE,
                                                made(jax.random.key(0))))
  for seed in options.seeds:
    first, second = jax.random.split(jax.random.key(seed))
    begin, right, *_ = run(float_training, setting, options.epochs, made(first), first)
    print(f'seed {seed}: float after {options.epochs} epochs {right:.2f} %', flush=True)
    for name in options.methods:
      _, right, size, seconds, loss = run(ready(name), setting, options.tune, begin, second)
      found[name]['accuracy'].append(right), found[name]['seconds'].append(seconds)
      found[name]['bytes'] = size
      print(f'seed {seed}: {name}: {right:.2f} %, {size:,} bytes, loss {loss:.3f}, {seconds:.2f} s an epoch',
            flush=True)
      if options.out:
        options.out.write_text(json.dumps({'options': vars(options), 'found': found}, default=str, indent=2) + '\n')
  print('\n'.join(table(found)))


def table(found):
  """A row for each method."""
  yield '| weights | test accuracy [%] (seeds) | to float | weight bytes | time of an epoch, to float |'
  yield '|---|---|---|---|---|'
  base = found.get('float')
  for name, row in found.items():
    mean, spread = statistics.mean(row['accuracy']), statistics.pstdev(row['accuracy'])
    apart = f'{mean - statistics.mean(base["accuracy"]):+.2f}' if base else ''
    ratio = f'{min(row["seconds"]) / min(base["seconds"]):.2f}' if base else ''
    yield f'| {name} | {mean:.2f} +- {spread:.2f} ({len(row["accuracy"])}) | {apart} | {row["bytes"]:,} | {ratio} |'


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data-dir', help='where TensorFlow Datasets keeps cifar10')
  parser.add_argument('--cache', type=pathlib.Path, metavar='FILE.npz', help='decoded images, written if not there')
  parser.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS), metavar='NAME')
  parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
  parser.add_argument('--epochs', type=int, default=20)
  parser.add_argument('--tune', type=int, default=10)
  parser.add_argument('--batch-size', type=int, default=128)
  parser.add_argument('--limit', type=int, help='so many images of each part')
  parser.add_argument('--out', type=pathlib.Path, metavar='FILE.json')
  main(parser.parse_args())
