"""How long tracing and channel analysis take, and how that grows with depth: `python graph.py [--plot FILE]`.

Beside it Torch-Pruning's dependency graph and the enumeration of its groups, on the same architectures, where `torch`
and `torch-pruning` are installed. All contenders run in turn in one process. Parameters and inputs are shapes for
effjax; Torch-Pruning reads the autograd graph of a forward pass, which is part of its time and also printed alone.
"""
import argparse
import importlib
import os
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from resnet50 import BLOCKS, CLASSES, SIZE, ResNet50

from effjax import graph

try:
  import torch
  import torch_pruning
  Module = torch.nn.Module
except ImportError:
  torch, Module = None, object

DEPTHS = (12, 24, 50, 100, 200, 400)
STAGES = ('trace', 'labels', 'rest')


# --- the architectures in Flax ------------------------------------------------------------------------------------

class TransformerLayer(nn.Module):
  """Pre-norm: `y = x + attention(norm(x))`, `y + mlp(norm(y))`, the MLP four times as wide."""
  heads: int

  @nn.compact
  def __call__(self, x):
    x = x + nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm()(x))
    y = nn.gelu(nn.Dense(4 * x.shape[-1])(nn.LayerNorm()(x)))
    return x + nn.Dense(x.shape[-1])(y)


class ViT(nn.Module):
  """Dosovitskiy et al., ICLR 2021, arXiv:2010.11929: class token, learned positions. The defaults are ViT-B/16."""
  depth: int = 12
  width: int = 768
  heads: int = 12
  patch: int = 16

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(self.width, (self.patch,) * 2, self.patch)(x)
    x = x.reshape(x.shape[0], -1, self.width)
    token = self.param('token', nn.initializers.zeros, (1, 1, self.width))
    x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.width)), x], 1)
    x = x + self.param('positions', nn.initializers.normal(.02), (1, x.shape[1], self.width))
    for _ in range(self.depth):
      x = TransformerLayer(self.heads)(x)
    return nn.Dense(CLASSES)(nn.LayerNorm()(x)[:, 0])


class ConvStack(nn.Module):
  """`depth` layers `relu(x + bn(conv(relu(bn(conv(x))))))`."""
  depth: int
  width: int = 64

  @nn.compact
  def __call__(self, x):
    conv = lambda x: nn.BatchNorm(use_running_average=True)(nn.Conv(self.width, (3, 3), use_bias=False)(x))
    x = nn.relu(conv(x))
    for _ in range(self.depth):
      x = nn.relu(x + conv(nn.relu(conv(x))))
    return nn.Dense(CLASSES)(x.mean((1, 2)))


# --- and in PyTorch -----------------------------------------------------------------------------------------------

class Sum(Module):
  """`branch(x) + shortcut(x)`."""

  def __init__(self, branch, shortcut=None):
    super().__init__()
    self.branch, self.shortcut = branch, shortcut or torch.nn.Identity()

  def forward(self, x):
    return self.branch(x) + self.shortcut(x)


class Attention(Module):
  """Self-attention over `[n, tokens, width]`."""

  def __init__(self, width, heads):
    super().__init__()
    self.attention = torch.nn.MultiheadAttention(width, heads, batch_first=True)

  def forward(self, x):
    return self.attention(x, x, x, need_weights=False)[0]


class TorchViT(Module):
  """As `ViT`."""

  def __init__(self, size, depth=12, width=768, heads=12, patch=16):
    super().__init__()
    t = torch.nn
    self.embed = t.Conv2d(3, width, patch, patch)
    self.token = t.Parameter(torch.zeros(1, 1, width))
    self.positions = t.Parameter(torch.randn(1, 1 + (size // patch)**2, width) * .02)
    layer = lambda: (
        Sum(t.Sequential(t.LayerNorm(width), Attention(width, heads))),
        Sum(t.Sequential(t.LayerNorm(width), t.Linear(width, 4 * width), t.GELU(), t.Linear(4 * width, width))))
    self.layers = t.Sequential(*(part for _ in range(depth) for part in layer()))
    self.norm, self.head = t.LayerNorm(width), t.Linear(width, CLASSES)

  def forward(self, x):
    x = self.embed(x).flatten(2).transpose(1, 2)
    x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
    return self.head(self.norm(self.layers(x))[:, 0])


def torch_conv(cin, cout, kernel=3, strides=1):
  """Convolution without bias, then BatchNorm."""
  conv = torch.nn.Conv2d(cin, cout, kernel, strides, kernel // 2, bias=False)
  return torch.nn.Sequential(conv, torch.nn.BatchNorm2d(cout))


def torch_resnet50():
  """As `ResNet50`."""
  t, cin = torch.nn, 64
  layers = [torch_conv(3, 64, 7, 2), t.ReLU(), t.MaxPool2d(3, 2, 1)]
  for stage, blocks in enumerate(BLOCKS):
    for block in range(blocks):
      width, strides, first = 64 * 2**stage, 2 if block == 0 and stage else 1, block == 0
      branch = t.Sequential(torch_conv(cin, width, 1), t.ReLU(), torch_conv(width, width, 3, strides), t.ReLU(),
                            torch_conv(width, 4 * width, 1))
      layers += [Sum(branch, torch_conv(cin, 4 * width, 1, strides) if first else None), t.ReLU()]
      cin = 4 * width
  return t.Sequential(*layers, t.AdaptiveAvgPool2d(1), t.Flatten(), t.Linear(cin, CLASSES))


def torch_stack(depth, width=64):
  """As `ConvStack`."""
  t = torch.nn
  layer = lambda: (Sum(t.Sequential(torch_conv(width, width), t.ReLU(), torch_conv(width, width))), t.ReLU())
  return t.Sequential(torch_conv(3, width), t.ReLU(), *(part for _ in range(depth) for part in layer()),
                      t.AdaptiveAvgPool2d(1), t.Flatten(), t.Linear(width, CLASSES))


# --- measuring ----------------------------------------------------------------------------------------------------

class Case(NamedTuple):
  """One architecture: `flax` the module, `size` of the image, `torch` makes the same in PyTorch."""
  flax: nn.Module
  size: int
  torch: Callable[[], Any]


def models():
  """The two real networks."""
  return {'ResNet-50': Case(ResNet50(), SIZE, lambda: torch_resnet50()),
          'ViT-B/16': Case(ViT(), SIZE, lambda: TorchViT(SIZE))}


def stack(kind, depth):
  """A stack of `depth` layers, 64 wide, on 8x8 images or 17 tokens."""
  if kind == 'convolutions':
    return Case(ConvStack(depth), 8, lambda: torch_stack(depth))
  small = dict(depth=depth, width=64, heads=4, patch=8)
  return Case(ViT(**small), 32, lambda: TorchViT(32, **small))


def timers(case, compare):
  """Both contenders of one architecture: each, given a clock, measures once. Their parameters are as many."""
  x = jax.ShapeDtypeStruct((1, case.size, case.size, 3), jnp.float32)
  variables = dict(jax.eval_shape(lambda: case.flax.init(jax.random.key(0), jnp.zeros(x.shape))))
  params = variables.pop('params')
  rest = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), variables)
  make = lambda: lambda p, x: case.flax.apply({'params': p, **rest}, x)  # another function: JAX remembers traces
  contenders = [lambda clock: effjax_seconds(make(), params, x, clock)]
  if compare:
    net, image = case.torch(), torch.ones(1, 3, case.size, case.size)
    here, there = parameters(params), sum(p.numel() for p in net.parameters())
    assert there == here, f'{there} parameters in PyTorch, {here} in Flax'
    contenders.append(lambda clock: torch_seconds(net, image, clock))
  return contenders


def parameters(params):
  """How many numbers a tree holds."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def effjax_seconds(fn, params, x, clock):
  """`graph.channels`, and of it the trace, the labels of all equations, and the rest; what it found."""
  parts, made = {}, {}

  def timed(what, call):
    def run(*args):
      start = clock()
      made[what] = call(*args)
      parts[what] = clock() - start
      return made[what]
    return run

  module = importlib.import_module('effjax.graph.channels')  # as an attribute of effjax.graph it is the function
  with mock.patch.multiple(module, trace=timed('trace', module.trace), propagate=timed('labels', module.propagate)):
    timed('effjax', graph.channels)(fn, params, x)
  return parts | {'rest': parts['effjax'] - parts['trace'] - parts['labels'], 'parameters': parameters(params),
                  'equations': len(made['trace'].eqns), 'channels': made['effjax'].size}


def torch_seconds(net, image, clock):
  """The dependency graph and all its groups, and how many; the forward pass alone."""
  start = clock()
  found = torch_pruning.DependencyGraph().build_dependency(net, image, verbose=False)
  built = clock()
  groups = sum(1 for _ in found.get_all_groups())
  listed = clock()
  net(image)
  return {'torch': listed - start, 'build': built - start, 'groups': listed - built, 'forward': clock() - listed,
          'count': groups}


def measure(contenders, rounds, clock, warm):
  """All networks and contenders in turn: for each network, what its timers gave in each round.

  `warm` are the networks that run once before, uncounted: a process that compiles its first scalars is slower.
  """
  for timer in [timer for name in warm for timer in contenders[name]]:
    timer(clock)
  times = {name: {} for name in contenders}
  for _ in range(rounds):
    for name, each in contenders.items():
      for what, value in [pair for timer in each for pair in timer(clock).items()]:
        times[name].setdefault(what, []).append(value)
  return times


def medians(times):
  """The median of each list."""
  return {what: statistics.median(values) for what, values in times.items()}


def exponent(sizes, seconds):
  """The slope of log seconds over log size: 1 is linear growth."""
  return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


# --- printing -----------------------------------------------------------------------------------------------------

def spread(values):
  """Median and quartiles in seconds."""
  low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
  return f'{middle:8.3f} ({low:.3f} to {high:.3f})'


def show_models(measured):
  """The real networks: one line for each contender, with its parts."""
  print(f'{"seconds, median (quartiles)":34} {"whole":>26}   of which')
  for name, times in measured.items():
    mid = medians(times)
    parts = ', '.join(f'{what} {mid[what]:.3f}' for what in STAGES)
    print(f'{name + ", effjax":34} {spread(times["effjax"]):>26}   {parts}; {mid["parameters"]:.0f} parameters, '
          f'{mid["equations"]:.0f} equations, {mid["channels"]:.0f} channels')
    if 'torch' in mid:
      ratio = statistics.median(a / b for a, b in zip(times['torch'], times['effjax'], strict=True))
      print(f'{name + ", Torch-Pruning":34} {spread(times["torch"]):>26}   build {mid["build"]:.3f}, groups '
            f'{mid["groups"]:.3f}; {mid["count"]:.0f} groups; a forward pass alone {mid["forward"]:.3f}; '
            f'{ratio:.2f} times effjax')


def show_depths(kind, measured):
  """Growth with depth: a line for each depth, and the fitted exponents."""
  rows = {depth: medians(times) for depth, times in measured.items()}
  compare = any('torch' in row for row in rows.values())
  print(f'\nstack of {kind}: seconds, median\n{"layers":>6} {"equations":>9} {"channels":>8} {"effjax":>8} '
        f'{"trace":>8} {"labels":>8} {"rest":>8} {"us/equation":>11}'
        + f' {"Torch-Pruning":>13} {"build":>8} {"groups":>8} {"forward":>8}' * compare)
  for depth, row in rows.items():
    print(f'{depth:6} {row["equations"]:9.0f} {row["channels"]:8.0f} {row["effjax"]:8.3f} '
          + ' '.join(f'{row[what]:8.3f}' for what in STAGES) + f' {1e6 * row["effjax"] / row["equations"]:11.0f}'
          + (f' {row["torch"]:13.3f} {row["build"]:8.3f} {row["groups"]:8.3f} {row["forward"]:8.3f}' if 'torch' in row
             else ''))
  print('exponents (1 is linear in the equations), over all depths and between the last two: '
        + ', '.join(filter(None, (growth(what, rows.values()) for what in ('effjax', *STAGES, 'torch', 'groups')))))


def growth(what, rows):
  """The exponents of one part, where it was measured at three depths."""
  there = [(row['equations'], row[what]) for row in rows if row.get(what, 0) > 0]
  return f'{what} {exponent(*zip(*there)):.2f} {exponent(*zip(*there[-2:])):.2f}' if len(there) > 2 else None


def draw(path, measured):
  """Seconds over equations, both logarithmic, with the slope of linear growth."""
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import pyplot
  figure, panels = pyplot.subplots(1, len(measured), figsize=(5 * len(measured), 4), squeeze=False)
  for panel, (kind, each) in zip(panels[0], measured.items()):
    rows = [medians(times) for times in each.values()]
    size = [row['equations'] for row in rows]
    for what, label in (('effjax', 'effjax'), ('trace', 'of it the trace'), ('torch', 'Torch-Pruning')):
      there = [row for row in rows if what in row]
      if there:
        panel.loglog([row['equations'] for row in there], [row[what] for row in there], 'o-', label=label)
    panel.loglog(size, [rows[0]['effjax'] * n / size[0] for n in size], 'k:', label='linear')
    panel.set(title=f'stack of {kind}, {min(each)} to {max(each)} layers', xlabel='equations', ylabel='seconds')
    panel.legend()
  figure.tight_layout()
  figure.savefig(path)
  print(f'\nplot: {path}')


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rounds', type=int, default=9, help='of the two real networks; the stacks run a third of it')
  parser.add_argument('--depths', type=int, nargs='*', default=DEPTHS)
  parser.add_argument('--torch-depth', type=int, default=100, help='the deepest stack that Torch-Pruning is given')
  parser.add_argument('--cpu', action='store_true', help='CPU time on one thread, not wall time: for a busy machine')
  parser.add_argument('--plot', metavar='FILE', help='writes the growth with depth as a picture')
  args = parser.parse_args()
  clock = time.process_time if args.cpu else time.perf_counter
  beside = 'without Torch-Pruning: pip install torch torch-pruning'
  if torch:
    warnings.filterwarnings('ignore', module='torch')
    torch.set_num_threads(1 if args.cpu else torch.get_num_threads())
    beside = (f'torch {torch.__version__}, torch-pruning {version("torch-pruning")}, '
              f'torch threads: {torch.get_num_threads()}')
  print(f'jax {jax.__version__}, {os.cpu_count()} cores, {args.rounds} rounds, {"CPU" if args.cpu else "wall"} time; '
        f'{beside}')
  contenders = {name: timers(case, torch) for name, case in models().items()}
  show_models(measure(contenders, args.rounds, clock, contenders))
  measured = {}
  for kind in ('convolutions', 'transformer layers') if args.depths else ():
    contenders = {d: timers(stack(kind, d), torch and d <= args.torch_depth) for d in args.depths}
    measured[kind] = measure(contenders, -(-args.rounds // 3), clock, [min(args.depths)])  # others have its shapes
    show_depths(kind, measured[kind])
  if args.plot and measured:
    draw(args.plot, measured)
  print(f'load at the end {os.getloadavg()[0]:.1f}')


if __name__ == '__main__':
  main()
