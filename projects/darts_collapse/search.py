"""Architecture searches on the cells of NAS-Bench-201 with CIFAR-10: `python search.py --data-dir DIR --tables DIR`.

Every method searches with the same supernet, steps and optimizers; half of the training images move the weights, the
other half the decisions. No cell is trained afterwards: the benchmark's table (12 epochs of the whole network) says
what a cell is worth, and which part of all 15,625 cells is better. Along the way each search records, epoch by epoch,
the probabilities, the accuracy on the other half and, where the decisions are a softmax, the dominant eigenvalue of
the loss by them. Random search gets the best by validation accuracy of as many cells as could be trained for 12 epochs
with the multiply-accumulates of one search. Test images are never looked at.
"""
import argparse
import json
import math
import os
import pathlib
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import data, search, train
from effjax.layers.fast import fast
from effjax.reparam import Reparam, Rule, at, chain
from effjax.search import encoding
from effjax.search.nas_bench_201 import OPERATORS, SPACE, to_text
from effjax.train.memory import keep_memory

STOPPED, LIMITED = 'DARTS, stopped by the eigenvalue', 'DARTS, at most 2 skips'
PERTURBED, RANDOM = 'DARTS-PT', 'random search'


class Method(NamedTuple):
  """rule, others: made for a number of steps: of the choices; further ones by pattern. penalties: as of `objective`.

  bilevel: as of `make_step`; None: one step for both, on the weights' half. decay: of the weights. warm_up: for this
  part of the steps decisions stay as they start. fixed: they stay throughout, and operators are selected by
  perturbation.
  """
  rule: Callable[[int], Rule]
  others: Callable[[int], Mapping[str, Rule]] = lambda steps: {}
  penalties: Mapping[str, Callable] = {}
  bilevel: str | None = 'first'
  decay: float = 5e-4
  warm_up: float = 0.
  fixed: bool = False


def falling(first, last):
  """A temperature that falls along a line."""
  return lambda steps: optax.linear_schedule(first, last, steps)


def zero_one(facts):
  """FairDARTS' loss of its sigmoids, which are the soft facts."""
  return -10. * jnp.mean(jnp.square(jnp.stack([fact.choice for fact in facts.values()]) - .5))


METHODS = {
    'DARTS': Method(lambda steps: search.softmax()),
    'DARTS, one level': Method(lambda steps: search.softmax(), bilevel=None),
    'DARTS, warm-up': Method(lambda steps: search.softmax(), warm_up=.5),
    'R-DARTS, decay 81e-4': Method(lambda steps: search.softmax(), decay=81e-4),
    'DARTS-PT, fixed': Method(lambda steps: search.softmax(), bilevel=None, fixed=True),
    'DARTS-': Method(lambda steps: search.softmax(),
                     lambda steps: {'auxiliary_skip': search.auxiliary_skip(falling(1., 0.)(steps))}),
    'FairDARTS': Method(lambda steps: search.sigmoid(), penalties={'zero_one': zero_one}),
    'GDAS': Method(lambda steps: search.straight_through_gumbel(temperature=falling(10., .1)(steps))),
    'SNAS': Method(lambda steps: search.gumbel(temperature=falling(2., .1)(steps)), bilevel=None),
    'DrNAS': Method(lambda steps: search.dirichlet()),
    'DrNAS, warm-up': Method(lambda steps: search.dirichlet(), warm_up=.5)}


class Search(NamedTuple):
  """The compiled functions of a method, the same for every seed.

  start(key) -> state; epoch(state, key) -> (state, metrics); probabilities(state) -> {path: p};
  accuracy(state, {path: p}) on held-out images; eigenvalue(state, key).
  """
  start: Callable
  epoch: Callable
  probabilities: Callable
  accuracy: Callable
  eigenvalue: Callable


def halves(options) -> dict[str, jax.Array]:
  """Training images and labels, in a fixed order whose first half moves the weights."""
  whole = dict(np.load(options.cache)) if options.cache else loaded(options.data_dir)
  order = np.random.RandomState(0).permutation(len(whole['train_image']))[:options.limit]
  images = smaller(whole['train_image'][order], options.shrink)
  return {'image': jnp.asarray(images), 'label': jnp.asarray(whole['train_label'][order])}


def smaller(images: np.ndarray, factor: int) -> np.ndarray:
  """The mean of each `factor` x `factor` pixels."""
  n, h, w, c = images.shape
  blocks = images.reshape(n, h // factor, factor, w // factor, factor, c)
  return np.round(blocks.mean((2, 4), dtype=np.float32)).astype(images.dtype)


def loaded(folder) -> dict[str, np.ndarray]:
  """The training part of the set, decoded."""
  dataset = data.load('cifar10', folder)
  parts = [part.fetch(np.arange(part.size)) for part in (dataset.train, dataset.validation)]
  return {f'train_{name}': np.concatenate([part[name] for part in parts]) for name in ('image', 'label')}


def optimizer(method, options, steps, reparam: Reparam, slots) -> optax.GradientTransformation:
  """Momentum on a cosine for the weights, Adam for the decisions, both decayed."""
  weights = optax.chain(optax.clip_by_global_norm(5.), optax.add_decayed_weights(method.decay),
                        optax.sgd(optax.cosine_decay_schedule(options.rate, steps, .04), .9))
  waiting = lambda step: jnp.where(step < method.warm_up * steps, 0., options.decision_rate)
  moved = optax.chain(optax.add_decayed_weights(1e-3), optax.adam(waiting, b1=.5))
  decisions = optax.set_to_zero() if method.fixed else moved
  return train.optimizer(reparam, slots, weights=weights, decisions=decisions)


def made(method: Method, options, images, labels) -> Search:
  """The functions of one method."""
  half, size = len(images) // 2, options.batch_size
  steps = half // size
  net = search.NASBench201(10, options.features, options.cells, auxiliary_skip=bool(method.others(1)), affine=False)
  others = [at(where, rule) for where, rule in method.others(options.epochs * steps).items()]
  reparam = chain(at('edges.*choice', method.rule(options.epochs * steps)), *others)
  how = data.standard('cifar10', images.shape[1:])
  apply = fast(lambda params, stats, x: net.apply({'params': params, **stats}, x, True, mutable=['batch_stats']))

  def forward(weights, stats, batch, key):
    logits, stats = apply(weights, stats, data.normalize(batch['image']))
    return {'logits': logits}, stats

  task = train.objective(forward, [train.cross_entropy()], penalties=method.penalties,
                         augment=lambda keys, x: data.augment(keys, x, **how))
  shapes = jax.eval_shape(lambda key: reparam.init(key, net.init(key, jnp.zeros((1, 32, 32, 3)), False)['params']),
                          jax.random.key(0))
  tx = optimizer(method, options, options.epochs * steps, reparam, shapes)
  step = train.make_step(task, reparam, tx, bilevel=method.bilevel)
  batch_of = lambda where: {'image': images[where], 'label': labels[where], 'id': jnp.arange(size)}

  @jax.jit
  def start(key):
    variables = net.init(key, jnp.zeros((1, 32, 32, 3)), False)
    slots, stats = reparam.init(key, variables['params']), {'batch_stats': variables['batch_stats']}
    return train.init_state(task, reparam, tx, slots, stats, batch_of(jnp.arange(size)), key)

  both = lambda state, where: step(state, batch_of(where[0]), batch_of(half + where[1]))
  alone = lambda state, where: step(state, batch_of(where[0]))
  steps_of_epoch = repeated(both if method.bilevel else alone)

  def epoch(state, key):
    orders = [jax.random.permutation(k, half)[:steps * size].reshape(steps, size) for k in jax.random.split(key)]
    state, metrics = steps_of_epoch(state, tuple(orders))
    return state, jax.tree.map(jnp.mean, metrics)

  @jax.jit
  def probabilities(state):
    return {path: fact.choice for path, fact in reparam.facts(state.slots, False).items() if path in SPACE}

  def logits_of(state, choices, where):
    weights = encoding.put(reparam.apply(state.slots.theta, state.slots.phi, state.slots.state, None), choices)
    return apply(weights, state.model_state, data.normalize(images[where]))[0]

  @jax.jit
  def accuracy(state, choices):
    blocks = half + jnp.arange(min(half, options.held_out) // 250 * 250).reshape(-1, 250)
    right = lambda where: jnp.mean(logits_of(state, choices, where).argmax(-1) == labels[where])
    return 100 * jnp.mean(jax.lax.map(right, blocks))

  @jax.jit
  def eigenvalue(state, key):
    where = half + jnp.arange(250)

    def loss(phi):
      choices = {path: fact.choice for path, fact in reparam.facts(state.slots._replace(phi=phi), False).items()}
      values = optax.softmax_cross_entropy_with_integer_labels(
          logits_of(state, {path: choices[path] for path in SPACE}, where), labels[where])
      return jnp.mean(values)
    return search.dominant_eigenvalue(key, loss, state.slots.phi, tolerance=.05, max_steps=10).value

  return Search(start, epoch, probabilities, accuracy, eigenvalue)


def repeated(step: Callable) -> Callable:
  """`(state, xs) -> (state, ys)` as of `lax.scan`; on a CPU a loop of compiled steps: within a scan XLA runs this
  network's dense convolutions there about 27 times slower."""
  if jax.default_backend() != 'cpu':
    return jax.jit(lambda state, xs: jax.lax.scan(step, state, xs), donate_argnums=0)
  compiled = jax.jit(step, donate_argnums=0)

  def run(state, xs):
    ys = []
    for i in range(len(jax.tree.leaves(xs)[0])):
      state, y = compiled(state, jax.tree.map(lambda x, i=i: x[i], xs))
      ys.append(y)
    return state, jax.tree.map(lambda *ys: jnp.stack(ys), *ys)
  return run


def run(name: str, found: Search, options, seed: int) -> tuple[Any, dict[str, Any]]:
  """One search: (its last state, its record)."""
  key, begin = jax.random.key(seed), time.perf_counter()
  state, history = found.start(key), {'probabilities': [], 'accuracy': [], 'eigenvalue': []}
  for i in range(options.epochs):
    state, metrics = found.epoch(state, jax.random.fold_in(key, i))
    history['probabilities'].append({path: np.asarray(p).tolist() for path, p in found.probabilities(state).items()})
    history['accuracy'].append(float(metrics['held_out/accuracy' if METHODS[name].bilevel else 'accuracy']))
    if name == 'DARTS':
      history['eigenvalue'].append(float(found.eigenvalue(state, key)))
    print(f'{name}, seed {seed}, epoch {i + 1}: {told(found.probabilities(state))}, {history["accuracy"][-1]:.3f}, '
          f'{history["eigenvalue"][-1:]}', file=sys.stderr, flush=True)
  p = found.probabilities(state)
  architecture = largest(p)
  record = {'method': name, 'seed': seed, 'history': history, 'architecture': to_text(architecture),
            'soft': float(found.accuracy(state, p)),
            'hard': float(found.accuracy(state, encoding.one_hot(SPACE, architecture))),
            'distance': float(jnp.mean(search.distance_from_one_hot(jnp.stack(list(p.values()))))),
            'seconds': time.perf_counter() - begin}
  return state, record


def told(p):
  """The largest operator of each edge, shortly, and its probability."""
  short = ('none', 'skip', '1x1', '3x3', 'pool')
  return ' '.join(f'{short[np.argmax(p[path])]} {np.max(p[path]):.2f}' for path in SPACE)


def largest(p) -> encoding.Architecture:
  """The most probable operator of each choice, none included, as the benchmark's own searches take it."""
  return encoding.decode(SPACE, np.array([np.argmax(p[path]) for path in SPACE]))


def stopped(record) -> dict[str, Any]:
  """The same search, had it been stopped when the mean eigenvalue grew; at its end if it never did."""
  values, p = record['history']['eigenvalue'], record['history']['probabilities']
  epochs = [found for i in range(len(values)) if (found := search.should_stop(values[:i + 1], window=3)) is not None]
  return record | {'method': STOPPED, 'architecture': to_text(largest(p[epochs[0] if epochs else -1])),
                   'stopped': epochs[0] if epochs else None, 'hard': math.nan}


def limited(record, most: int = 2) -> encoding.Architecture:
  """With the limit of P-DARTS: only the most probable skips stay, the other edges get their next operator."""
  skip, last = OPERATORS.index('skip_connect'), record['history']['probabilities'][-1]
  p = {path: np.array(q) for path, q in last.items()}
  skips = sorted((path for path in SPACE if np.argmax(p[path]) == skip), key=lambda path: -p[path][skip])
  for path in skips[most:]:
    p[path][skip] = 0.
  return largest(p)


def perturbed(record, found: Search, state, tune=None) -> encoding.Architecture:
  """Its operators selected by what the supernet loses without them."""
  order = random.Random(record['seed']).sample(list(SPACE), len(SPACE))
  chosen = search.perturbation(found.accuracy, found.probabilities(state), order, tune=tune, state=state)
  return encoding.decode(SPACE, np.array([chosen.operators[path] for path in SPACE]))


def tuning(found: Search, state, seed: int) -> tuple[Any, Callable]:
  """(a state whose weights start a new cosine, what trains them for one epoch after each edge is decided)."""
  key = jax.random.key(seed)

  def tune(state, edge, operator):
    decided = {'logits': jnp.where(jnp.arange(len(OPERATORS)) == operator, 50., -50.)}
    choices, *others = state.slots.phi
    slots = state.slots._replace(phi=(choices | {edge: decided}, *others))
    return found.epoch(state._replace(slots=slots), jax.random.fold_in(key, int(state.step)))[0]
  slots, stats = jax.tree.map(jnp.copy, (state.slots, state.model_state))  # an epoch takes what it is given
  return found.start(key)._replace(slots=slots, model_state=stats), tune


def selected(record, method, architecture, found: Search, state) -> dict[str, Any]:
  """The same search with another architecture taken from it; hard: with the weights that the search left."""
  hard = float(found.accuracy(state, encoding.one_hot(SPACE, architecture)))
  return record | {'method': method, 'architecture': to_text(architecture), 'hard': hard}


def readings(record, found: Search, tuned: Search, state):
  """The search as its method reads it: a record for each way."""
  name, fixed = record['method'], METHODS[record['method']].fixed
  of = lambda method, architecture: selected(record, method, architecture, found, state)
  if not fixed:
    yield record
  if name == 'DARTS':
    yield stopped(record)
    yield of(LIMITED, limited(record))
  if name == 'DARTS' or fixed:
    by_loss = name if fixed else PERTURBED
    yield of(by_loss, perturbed(record, found, state))
    yield of(f'{by_loss}, tuned', perturbed(record, tuned, *tuning(tuned, state, record['seed'])))


def searches(options):
  """Every record, one after the other."""
  whole = halves(options)
  make = lambda method, options: made(method, options, whole['image'], whole['label'])
  tuned = make(METHODS['DARTS']._replace(bilevel=None, fixed=True),
               argparse.Namespace(**vars(options) | {'epochs': len(SPACE)}))
  for name in options.methods:
    found = make(METHODS[name], options)
    for seed in options.seeds:
      state, record = run(name, found, options, seed)
      yield from readings(record, found, tuned, state)


class Table(NamedTuple):
  """What the benchmark measured of every cell, in percent."""
  arch: np.ndarray
  validation: np.ndarray
  test: np.ndarray


def benchmark(folder) -> Table:
  """CIFAR-10 after 12 epochs."""
  with np.load(folder / 'nasbench201.npz') as file:
    if tuple(file['ops']) != OPERATORS:
      raise SystemExit(f'the table numbers its operators {tuple(file["ops"])}, wanted {OPERATORS}')
    columns = list(file['accuracy_columns'])
    return Table(file['arch'], *(file['accuracy'][:, columns.index(f'c10_{part}')] for part in ('val', 'test')))


def judged(record, table: Table) -> dict[str, Any]:
  """The record with the table's accuracy of its cell, and the part of the table that is better, in percent."""
  row = search.nas_bench_201.row_of(table.arch, search.nas_bench_201.parse(record['architecture']))
  return record | {'test': float(table.test[row]), 'better': 100 * float(np.mean(table.test > table.test[row]))}


def at_random(options, table: Table, seed: int) -> dict[str, Any]:
  """The best by validation accuracy of as many cells as the search's computation could train for 12 epochs.

  A search passes the images once in each epoch, half of them for the weights and half for the decisions, through five
  operators; a cell has one of them.
  """
  several = max(1, options.epochs * len(OPERATORS) // 12)
  rows = np.random.RandomState(seed).choice(len(table.test), several, replace=False)
  row = rows[np.argmax(table.validation[rows])]
  return {'method': RANDOM, 'seed': seed, 'architecture': to_text(encoding.decode(SPACE, table.arch[row]))}


def main(options):
  keep_memory()
  table = benchmark(options.tables)
  print(f'{jax.devices()[0].device_kind}, {os.cpu_count()} cores; {options.epochs} epochs of '
        f'{options.limit or "all"} images, {options.features} features, {options.cells} cells a stage', flush=True)
  records = [judged(at_random(options, table, seed), table) for seed in options.seeds]
  for record in searches(options):
    records.append(judged(record, table))
    last = records[-1]
    print(f'{last["method"]}, seed {last["seed"]}: {last["architecture"]} {last["test"]:.2f} % of the table, '
          f'{last["better"]:.2f} % are better; {last["soft"]:.1f} soft, {last["hard"]:.1f} hard, distance '
          f'{last["distance"]:.2f}, {last["seconds"]:.0f} s', flush=True)
    if options.out:
      options.out.write_text(json.dumps({'options': vars(options), 'records': records}, default=str) + '\n')
  print('\n'.join(rows(records)))


def rows(records):
  """A row for each method."""
  yield '| method (seeds) | test accuracy in the table [%] | cells that are better [%], each | skips | none |'
  yield '|---|---|---|---|---|'
  for name in dict.fromkeys(record['method'] for record in records):
    own = [record for record in records if record['method'] == name]
    test = [record['test'] for record in own]
    better = ', '.join(f'{record["better"]:.1f}' for record in own)
    several = [statistics.mean(record['architecture'].count(op) for record in own) for op in ('skip_connect', 'none')]
    yield (f'| {name} ({len(own)}) | {statistics.mean(test):.2f} +- {statistics.pstdev(test):.2f} | {better} | '
           f'{several[0]:.1f} | {several[1]:.1f} |')


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data-dir', help='where TensorFlow Datasets keeps cifar10')
  parser.add_argument('--cache', type=pathlib.Path, metavar='FILE.npz', help='decoded images instead')
  parser.add_argument('--tables', type=pathlib.Path, required=True, help='where nasbench201.npz is')
  parser.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS), metavar='NAME')
  parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2, 3])
  parser.add_argument('--epochs', type=int, default=50)
  parser.add_argument('--batch-size', type=int, default=64)
  parser.add_argument('--features', type=int, default=16)
  parser.add_argument('--cells', type=int, default=5, help='of a stage')
  parser.add_argument('--rate', type=float, default=.025, help='peak of the weights')
  parser.add_argument('--decision-rate', type=float, default=3e-4)
  parser.add_argument('--limit', type=int, help='so many images')
  parser.add_argument('--shrink', type=int, default=1, help='so many times lower and narrower images, by means')
  parser.add_argument('--held-out', type=int, default=5000, help='images of the other half for accuracies')
  parser.add_argument('--out', type=pathlib.Path, metavar='FILE.json')
  main(parser.parse_args())
