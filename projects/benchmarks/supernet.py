"""A search step of DARTS' supernet beside plain Flax and PyTorch: `python supernet.py [--only NAME ...]`.

Eight cells, eight operators, 16 channels, 32x32, batch 64, BatchNorm by the batch. Three steps (`--steps`): of the
weights (momentum on the cross entropy), of the architecture to first order (the gradient of the vectors on a held-out
batch), and to second order (finite differences). Contenders: `effjax` (`scan=True`); `unrolled`, the same without scan;
`flax` and `torch`, the network as it is usually written (`supernet_others.py`), PyTorch channels_last. All run in turn
in one process; medians of the ratios by round, and quartiles. Temporary memory is XLA's. PyTorch is left out where it
is not installed: pip install torch==2.13.0. Flax and unrolled take minutes to compile each step.
"""
import argparse
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from supernet_others import FlaxSupernet, torch_steps
from timing import measure, ratio

from effjax import tree
from effjax.search import DARTSSpace, edge_names
from effjax.search.architecture_gradient import finite_differences, first_order
from effjax.search.encoding import put
from effjax.train import keep_memory

STEPS, CONTENDERS, RATE = ('weight', 'first', 'second'), ('effjax', 'unrolled', 'flax', 'torch'), .025


def batches(size):
  """One for the weights and one held out: images and labels."""
  random = np.random.default_rng(0)
  return [(random.normal(size=(size, 32, 32, 3)).astype(np.float32), np.arange(size) % 10) for _ in range(2)]


def plain(args):
  """The Flax network: variables, and `forward(weights, stats, decisions, x) -> (logits, stats)`."""
  net = FlaxSupernet(args.features, args.cells)
  shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), *example(args)))

  def forward(weights, stats, p, x):
    logits, new = net.apply({'params': weights, 'batch_stats': stats}, x, p, mutable=['batch_stats'])
    return logits, new['batch_stats']
  return filled(shapes), forward


def example(args):
  """Images, and vectors of equal weights."""
  return jnp.zeros((args.batch_size, 32, 32, 3)), {kind: jnp.full((14, 8), 1 / 8) for kind in ('normal', 'reduce')}


def ours(args, scan=True):
  """The same of effjax; weights have the vectors in them, which nobody reads."""
  net = DARTSSpace(10, args.features, args.cells, scan=scan, padding='symmetric')
  shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), example(args)[0], False))
  here = [path for path in edge_names() if path in tree.leaves(shapes['params'])]

  def forward(weights, stats, p, x):
    vectors = {path: p[path.split('/')[0]][int(path.split('/')[1][4:])] for path in here}
    logits, new = net.apply({'params': put(weights, vectors), 'batch_stats': stats}, x, True, mutable=['batch_stats'])
    return logits, new['batch_stats']
  return filled(shapes), forward


def filled(shapes):
  """Variables of these shapes: kernels at random, of variance 2 / fan-in; without compiling anything."""
  random = np.random.default_rng(0)

  def fill(path, x):
    if path.endswith('kernel'):
      return jnp.asarray(random.normal(size=x.shape) * np.sqrt(2 / np.prod(x.shape[-4:-1])), x.dtype)
    return jnp.full(x.shape, path.endswith(('scale', 'var')), x.dtype)
  return tree.map_at(fill, shapes, tree.leaves(shapes))


def jax_steps(variables, forward, data):
  """Functions of one state, to be compiled: what each step computes, and the state before it."""
  weights, stats, optimizer = variables['params'], variables['batch_stats'], optax.sgd(RATE, .9)
  (x, y), (held_x, held_y) = data

  def loss(weights, decisions, stats, x, y):
    logits, stats = forward(weights, stats, jax.tree.map(jax.nn.softmax, decisions), x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), stats

  def weight(weights, stats, momentum, decisions, x, y):
    (_, stats), gradient = jax.value_and_grad(loss, has_aux=True)(weights, decisions, stats, x, y)
    change, momentum = optimizer.update(gradient, momentum)
    return optax.apply_updates(weights, change), stats, momentum

  losses = lambda stats, x, y: lambda w, a: loss(w, a, stats, x, y)[0]
  decisions = {kind: jnp.zeros((14, 8)) for kind in ('normal', 'reduce')}
  return {
      'weight': (weight, (weights, stats, optimizer.init(weights), decisions, x, y)),
      'first': (lambda w, s, a, x, y: first_order(losses(s, x, y), w, a), (weights, stats, decisions, held_x, held_y)),
      'second': (lambda w, s, a, x, y, x2, y2: finite_differences(losses(s, x, y), losses(s, x2, y2), w, a,
                                                                  inner_rate=RATE),
                 (weights, stats, decisions, x, y, held_x, held_y))}


def compiled(name, step, fn, arguments):
  """A call of one round. Prints seconds of tracing and compilation, and temporary memory."""
  start = time.perf_counter()
  lowered = jax.jit(fn).lower(*arguments)
  traced = time.perf_counter() - start
  run = lowered.compile()
  memory = run.memory_analysis().temp_size_in_bytes
  print(f'{name:8} {step:7} traced in {traced:5.1f} s, compiled in {time.perf_counter() - start - traced:6.1f} s, '
        f'temporary memory {memory / 2**20:7.1f} MiB', flush=True)
  return lambda: jax.block_until_ready(run(*arguments))


def contenders(args):
  """Calls of one round, by step and contender."""
  data, found = batches(args.batch_size), {step: {} for step in args.steps}
  for name, make in (('effjax', ours), ('unrolled', lambda args: ours(args, scan=False)), ('flax', plain)):
    if name in args.only:
      made = jax_steps(*make(args), data)
      for step in args.steps:
        found[step][name] = compiled(name, step, *made[step])
  try:
    made = torch_steps(args.features, args.cells, data, RATE) if 'torch' in args.only else {}
    for step in args.steps if made else ():
      found[step]['torch'] = made[step]
  except ImportError as error:
    print(f'no PyTorch here ({error})')
  return found


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--cells', type=int, default=8)
  parser.add_argument('--features', type=int, default=16)
  parser.add_argument('--batch-size', type=int, default=64)
  parser.add_argument('--rounds', type=int, default=11)
  parser.add_argument('--only', nargs='+', choices=CONTENDERS, default=list(CONTENDERS))
  parser.add_argument('--steps', nargs='+', choices=STEPS, default=list(STEPS))
  args = parser.parse_args()
  keep_memory()
  print(f'jax {jax.__version__}, {jax.devices()[0].device_kind}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}')
  for step, calls in contenders(args).items():
    times = measure(calls, args.rounds)
    for name in times:
      print(f'{step:7} {name:8} {statistics.median(times[name]):9.1f} ms' + ''.join(
          f'; over {other} {ratio(times[name], times[other])[1]}' for other in times if other != name), flush=True)
  print(f'load at the end {os.getloadavg()[0]:.1f}')


if __name__ == '__main__':
  main()
