"""What removing half of the channels of ResNet-50 gains, and what masking them gains: `python pruned_resnet50.py`.

The dense network, the one whose removed channels are only masked, and the shrunk one, batch 1, on XLA's CPU backend
and in LiteRT (float32, XNNPACK, one thread), all in turn in one process. The weights are random: nothing is asked of
the accuracy, only that the masked and the shrunk network give the same.
"""
import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from resnet50 import ResNet50, image

from effjax import cost, export, graph
from effjax.export import litert


def network(seed):
  """`fn(params, x)` in inference mode, with random weights and statistics, and an image."""
  net, rng = ResNet50(), np.random.default_rng(seed)
  specs = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros(image().shape)))
  params, stats = (jax.tree_util.tree_map_with_path(lambda path, s: drawn(rng, path[-1].key, s.shape), specs[part])
                   for part in ('params', 'batch_stats'))
  x = jnp.asarray(rng.normal(size=image().shape), jnp.float32)
  return lambda p, x: net.apply({'params': p, 'batch_stats': stats}, x), params, x


def drawn(rng, name, shape):
  """He's weights; BatchNorm that is neither the identity nor far from it."""
  if name == 'kernel':
    value = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
  else:
    value = rng.uniform(.5, 1., shape) if name in ('scale', 'var') else rng.normal(0, .1, shape)
  return jnp.asarray(value, jnp.float32)


def half(groups, multiple, seed):
  """A keep mask: half of the channels of each group, at random, rounded up to a multiple."""
  rng, keep = np.random.default_rng(seed), np.zeros(len(groups), bool)
  for group in np.unique(groups):
    mine = np.flatnonzero(groups == group)
    count = min(len(mine), -(-len(mine) // 2 // multiple) * multiple)
    keep[rng.choice(mine, count, replace=False)] = True
  return keep


def variants(seed, multiple):
  """(fn, params) by name, the image, and how many channels and groups there are and stay."""
  fn, params, x = network(seed)
  found = graph.channels(fn, params, x)
  keep = half(found.groups, multiple, seed)
  nets = {'dense': (fn, params), 'masked': (fn, graph.mask(found, params, keep)),
          'shrunk': graph.shrink(fn, params, keep, x)}
  return nets, x, f'{keep.sum()} of {found.size} channels of {len(np.unique(found.groups))} groups stay'


def xla(nets, x):
  """Runs and outputs by name: the compiled functions."""
  compiled = {name: jax.jit(fn).lower(params, x).compile() for name, (fn, params) in nets.items()}
  runs = {name: lambda name=name: compiled[name](nets[name][1], x).block_until_ready() for name in nets}
  return runs, {name: np.asarray(run()) for name, run in runs.items()}


def tflite(nets, x, folder):
  """Runs and outputs by name, and the bytes of each: float32 files in LiteRT."""
  size, runs, example = {}, {}, np.asarray(x)
  for name, (fn, params) in nets.items():
    path = Path(folder) / f'{name}.tflite'
    size[name] = export.float_tflite(fn, params, x, path)
    interpreter = litert.Interpreter(path.read_bytes())
    runs[name] = lambda run=interpreter.run: run(example)[0]
  return runs, {name: run() for name, run in runs.items()}, size


def measured(runs, rounds):
  """Seconds in each round by name, taking turns."""
  times = {name: [] for name in runs}
  for _ in range(rounds):
    for name, run in runs.items():
      start = time.perf_counter()
      run()
      times[name].append(time.perf_counter() - start)
  return times


def show(where, times, macs, size, outputs):
  """One line for each variant, with its ratio to the dense one, and the share of the gain that its MACs predict."""
  print(f'\n{where}\n{"network":8} {"ms, median (quartiles)":>26} {"of dense (quartiles)":>24} {"MACs":>14} '
        f'{"of dense":>8} {"bytes":>12}')
  ratios = {name: [a / b for a, b in zip(each, times['dense'], strict=True)] for name, each in times.items()}
  for name, each in times.items():
    print(f'{name:8} {spread([1e3 * t for t in each], 1):>26} {spread(ratios[name], 3):>24} {macs[name]:14.0f} '
          f'{macs[name] / macs["dense"]:8.3f} {size[name]:12}')
  gain = {name: 1 - statistics.median(each) for name, each in ratios.items()}
  predicted = 1 - macs['shrunk'] / macs['dense']
  print(f'masked gains {gain["masked"]:.3f} of the time, shrunk {gain["shrunk"]:.3f}; its MACs predict '
        f'{predicted:.3f}: share {gain["shrunk"] / predicted:.2f}. Masked and shrunk differ by '
        f'{difference(outputs, "masked"):.1e} of the largest output, dense and shrunk by '
        f'{difference(outputs, "dense"):.1e}')


def spread(values, digits):
  """Median and quartiles."""
  low, middle, high = statistics.quantiles(values, n=4)
  return f'{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})'


def difference(outputs, name):
  """Largest difference of an output from that of the shrunk network, relative to the largest output."""
  return np.abs(outputs[name] - outputs['shrunk']).max() / np.abs(outputs[name]).max()


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rounds', type=int, default=40)
  parser.add_argument('--multiple', type=int, default=8, help='the channels that stay in a group are a multiple of it')
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  nets, x, what = variants(args.seed, args.multiple)
  macs = {name: float(cost.macs(graph.profile(fn, params, x), {})) for name, (fn, params) in nets.items()}
  size = {name: sum(leaf.nbytes for leaf in jax.tree.leaves(params)) for name, (_, params) in nets.items()}
  print(f'jax {jax.__version__}, {jax.devices()[0].device_kind}, {os.cpu_count()} cores, {args.rounds} rounds; '
        f'ResNet-50 v1.5, 224 pixels, batch 1: {what}, a multiple of {args.multiple} in each')
  runs, outputs = xla(nets, x)
  show('XLA, bytes of the parameters', measured(runs, args.rounds), macs, size, outputs)
  with tempfile.TemporaryDirectory() as folder:
    runs, outputs, size = tflite(nets, x, folder)
  show('LiteRT, float32, one thread, bytes of the file', measured(runs, args.rounds), macs, size, outputs)
  print(f'load at the end {os.getloadavg()[0]:.1f}')


if __name__ == '__main__':
  main()
