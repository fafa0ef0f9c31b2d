"""Predicted against measured milliseconds of networks that the table has not seen: `python latency.py [--table FILE]`.

A table of single operators is measured once, on a coarse grid of sizes and widths. Then random networks are drawn,
predicted by `cost.latency`, exported (float32, int8) and timed in LiteRT, all files in turn.
"""
import argparse
import itertools
import os
import pathlib
import tempfile
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import cost, export, graph, quantize

SIZES = (4, 8, 16, 32, 64)
CINS, COUTS = (8, 64, 72, 128), (8, 32, 40, 64, 72, 128)  # on both sides of a kernel's tiles of 32 and 64
FORMATS = {'float32': 32, 'int8': 8}
CONVOLUTIONS = ((1, 1), (3, 1), (3, 2), (5, 1))  # kernel, stride
DEPTHWISE = ((3, 1), (3, 2), (5, 1), (5, 2))


class Layer(NamedTuple):
  """kind: conv, depthwise or head. residual: its input is added to what it makes."""
  kind: str
  kernel: int
  stride: int
  cin: int
  cout: int
  residual: bool = False


def grid() -> list[cost.Op]:
  """Operators on a grid: every kernel and stride, sizes 4 to 64, widths 8 to 128; the stem and the head."""
  op = lambda kind, kernel, stride, size, cin, cout: cost.Op(kind, (kernel,) * 2, stride, 1, 1, (size,) * 2, cin, cout)
  sizes = lambda stride: [size for size in SIZES if size * stride <= max(SIZES)]
  found = [op('conv', k, s, size, cin, cout) for k, s in CONVOLUTIONS for size in sizes(s)
           for cin, cout in itertools.product(CINS, COUTS)]
  found += [op('conv', 3, s, size, 3, cout) for s in (1, 2) for size in sizes(s) for cout in COUTS[:4]]
  found += [op('depthwise', k, s, size, 1, cout) for k, s in DEPTHWISE for size in sizes(s) for cout in COUTS]
  return found + [op('dense', 1, 1, 1, cin, 10) for cin in CINS]


def draw(rng) -> tuple[int, list[Layer]]:
  """(pixels, layers) of a random network: a stem, 2 to 10 blocks of any kind, a head."""
  pixels = size = int(rng.integers(16, 65))
  layers = []

  def add(kind, kernel, stride, width):
    nonlocal size
    cin = layers[-1].cout if layers else 3
    stride = stride if size > 7 else 1
    size = -(-size // stride)
    same = stride == 1 and cin == width and kind == 'conv' and len(layers) > 0
    layers.append(Layer(kind, kernel, stride, cin, width, same and rng.random() < .5))

  add('conv', 3, int(rng.integers(1, 3)), int(rng.integers(8, 49)))
  for _ in range(rng.integers(2, 11)):
    stride, now = 1 + int(rng.random() < .35), layers[-1].cout
    width = int(rng.integers(8, 129)) if rng.random() < .6 else now
    match rng.choice(['dense', 'pointwise', 'separable']):
      case 'dense':
        add('conv', *((3, stride) if stride == 2 or rng.random() < .7 else (5, 1)), width)
      case 'pointwise':
        add('conv', 1, 1, width)
      case 'separable':
        add('depthwise', int(rng.choice([3, 5])), stride, now)
        add('conv', 1, 1, width)
  return pixels, [*layers, Layer('head', 1, 1, layers[-1].cout, 10)]


def network(rng, layers):
  """(fn, params) with random weights."""
  def apply(p, x):
    for i, layer in enumerate(layers):
      w, b = p[f'{i}']['kernel'], p[f'{i}']['bias']
      if layer.kind == 'head':
        return x.mean((1, 2)) @ w + b[None]
      y = jax.lax.conv_general_dilated(x, w, (layer.stride,) * 2, 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
                                       feature_group_count=layer.cin if layer.kind == 'depthwise' else 1)
      y = jax.nn.relu(y + b[None, None, None])
      x = x + y if layer.residual else y
  shapes = [(layer.cin, layer.cout) if layer.kind == 'head' else
            (layer.kernel, layer.kernel, 1 if layer.kind == 'depthwise' else layer.cin, layer.cout) for layer in layers]
  kernel = lambda s: jnp.asarray(rng.normal(size=s) / np.sqrt(np.prod(s[:-1]) / 2), jnp.float32)
  return apply, {f'{i}': {'kernel': kernel(s), 'bias': jnp.zeros(s[-1])} for i, s in enumerate(shapes)}


def files(fn, params, x):
  """The contents of its .tflite files by format."""
  aware = quantize.aware(fn, params, x)
  ready = quantize.deployed(aware, jax.jit(aware.reparam.init)(jax.random.key(0), aware.params))
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'network.tflite'
    export.float_tflite(fn, params, x, path)
    contents = {'float32': path.read_bytes()}
    export.tflite(export.finalize(fn, *ready, x), path)
    return contents | {'int8': path.read_bytes()}


def ranks(x):
  return np.argsort(np.argsort(x))


def spearman(a, b):
  """Correlation of ranks; no ties among milliseconds."""
  return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def kendall(a, b):
  """The share of pairs in the same order, less that of the others."""
  i, j = np.triu_indices(len(a), 1)
  return float(np.mean(np.sign(a[i] - a[j]) * np.sign(b[i] - b[j])))


def read(path: pathlib.Path | None) -> cost.LatencyTable:
  """The table in the file; measured, and saved there, if there is none."""
  if path is not None and path.exists():
    return cost.load_latency_table(path)
  start = time.perf_counter()
  table = export.measure(grid(), formats=list(FORMATS))
  print(f'measured {len(table.entries)} operators in {time.perf_counter() - start:.0f} s, '
        f'overhead {1e3 * table.overhead_ms:.2f} us')
  if path is not None:
    cost.save_latency_table(table, path)
  return table


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--table', type=pathlib.Path, help='JSON file: read if it is there, else measured and written')
  parser.add_argument('--networks', type=int, default=30)
  parser.add_argument('--rounds', type=int, default=9, help='of interleaved measurements of the networks')
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  table = read(args.table)
  print(', '.join(f'{name} {value}' for name, value in table.machine.items()))
  rng, made, contents = np.random.default_rng(args.seed), [], []
  for _ in range(args.networks):
    pixels, layers = draw(rng)
    fn, params = network(rng, layers)
    x = jnp.asarray(rng.uniform(size=(4, pixels, pixels, 3)), jnp.float32)
    profile = graph.profile(fn, params, x[:1])
    predict = lambda bits, profile=profile: jax.jit(lambda: cost.latency(profile, {}, table=table, bits=bits))()
    predicted = {name: float(predict(bits)) for name, bits in FORMATS.items()}
    made.append((pixels, len(layers), float(cost.macs(profile, {})), predicted))
    contents.append(files(fn, params, x))
  times = iter(export.latencies_ms([each[name] for each in contents for name in FORMATS], args.rounds))
  measured = [{name: next(times) for name in FORMATS} for _ in contents]
  report(made, measured)


def report(made, measured):
  """One line for each network, then the figures for each format."""
  print(f'{"pixels":>6} {"layers":>6} {"MMACs":>8}' + ''.join(f'{f"{name}: predicted":>20} measured  ratio'
                                                             for name in FORMATS))
  for (pixels, layers, macs, predicted), got in zip(made, measured, strict=True):
    print(f'{pixels:6} {layers:6} {macs / 1e6:8.2f}' + ''.join(
      f'{predicted[name]:20.4f} {got[name]:8.4f} {predicted[name] / got[name]:6.2f}' for name in FORMATS))
  macs = np.array([m for _, _, m, _ in made])
  for name in FORMATS:
    a, b = np.array([p[name] for *_, p in made]), np.array([m[name] for m in measured])
    error = np.abs(a / b - 1)
    print(f'{name}: Spearman {spearman(a, b):.3f} (of MACs {spearman(macs, b):.3f}), Kendall {kendall(a, b):.3f} '
          f'(of MACs {kendall(macs, b):.3f}), relative error median {np.median(error):.1%}, 90th percentile '
          f'{np.quantile(error, .9):.1%}, predicted / measured median {np.median(a / b):.2f}; '
          f'load {os.getloadavg()[0]:.1f}')


if __name__ == '__main__':
  main()
