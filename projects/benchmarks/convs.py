"""How long convolutions take beside lax's and PyTorch's on the CPU: `python convs.py [--all] [--networks] [--plot F]`.

Without options the grid that the library promises something for, forward and backward: depthwise 3x3 and 5x5, grouped
3x3 and 1x1, and 1x1 convolutions at 32x32. `--all` adds 7x7, strides 2, 112x112 and other batches, and the forward pass
alone. `--networks` measures a training step of MobileNetV2 and ShuffleNetV2 instead (32x32, batch 32), there `lax` is
the same network with lax's convolutions and pools and Flax's BatchNorm; `--keep-memory` runs all contenders as the
command line of effjax trains (`effjax.train.keep_memory`). All contenders run in turn in one process; medians, and
quartiles of the ratios. `lax` is formulation='lax'; PyTorch runs channels_last and is left out where it is not
installed (torchvision for the networks): pip install torch==2.13.0 torchvision==0.28.0
"""
import argparse
import functools
import os
import pathlib
import statistics
import sys
import types
import unittest.mock
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import measure, ratio

from effjax import models
from effjax.graph.trace import evaluate, execute, trace
from effjax.layers.block import Block
from effjax.layers.conv_formulations import fastest
from effjax.layers.conv_shape import Conv
from effjax.layers.convolution import DIMENSIONS, conv_general_dilated
from effjax.train import keep_memory

try:
  import torch
except ImportError:
  torch = None

KINDS = ('depthwise', 'grouped', 'pointwise')


def grid(everything):
  """(kind, batch, size, cin, cout, kernel, strides, groups) of each row."""
  depthwise = [('depthwise', 32, 32, c, c, k, 1, c) for k in (3, 5) for c in (32, 64, 128, 256, 512)]
  grouped = [('grouped', 32, 32, c, c, k, 1, g) for k in (3, 1) for c in (64, 128, 256) for g in (2, 4, 8)]
  pointwise = [('pointwise', 32, 32, i, o, 1, 1, 1)
               for i, o in ((16, 16), (64, 64), (32, 192), (192, 32), (128, 128), (256, 256))]
  rows = depthwise + grouped + pointwise
  if everything:
    rows += [('depthwise', n, s, c, c, k, st, c) for n, s in ((1, 32), (64, 32), (1, 112), (4, 112))
             for c in (16, 128, 512) for k in (3, 5, 7) for st in (1, 2) if n * s * s * c < 8e7]
    rows += [('grouped', n, s, c, c, 3, st, g) for n, s in ((1, 32), (64, 32), (4, 112)) for c, g in ((64, 4), (128, 8))
             for st in (1, 2)]
    rows += [('pointwise', n, s, i, o, 1, 1, 1) for n, s in ((1, 32), (64, 32), (4, 112))
             for i, o in ((16, 96), (96, 24), (320, 1280)) if n * s * s * o < 8e7]
  return rows


def with_jax(row, formulation, forward):
  """A call of one round."""
  _, n, size, cin, cout, k, strides, groups = row
  random, pad = np.random.default_rng(0), [((k - 1) // 2,) * 2] * 2
  x = jnp.asarray(random.normal(size=(n, size, size, cin)), jnp.float32)
  w = jnp.asarray(random.normal(size=(k, k, cin // groups, cout)), jnp.float32)
  fn = lambda x, w: conv_general_dilated(x, w, (strides,) * 2, pad, dimension_numbers=DIMENSIONS,
                                         feature_group_count=groups, formulation=formulation)
  g = jnp.asarray(random.normal(size=jax.eval_shape(fn, x, w).shape), jnp.float32)

  def both(x, w, g):
    y, pull = jax.vjp(fn, x, w)
    return y, pull(g)
  run = jax.jit((lambda x, w, g: fn(x, w)) if forward else both).lower(x, w, g).compile()
  return lambda: jax.block_until_ready(run(x, w, g))


def with_torch(row, forward):
  """The same in PyTorch."""
  _, n, size, cin, cout, k, strides, groups = row
  last = lambda *shape: torch.randn(*shape).to(memory_format=torch.channels_last).requires_grad_(not forward)
  x, w = last(n, cin, size, size), last(cout, cin // groups, k, k)
  conv = lambda: torch.nn.functional.conv2d(x, w, None, strides, (k - 1) // 2, 1, groups)
  g = torch.randn_like(conv())

  def run():
    x.grad = w.grad = None
    y = conv()
    if not forward:
      y.backward(g)
  return run


def chosen(row):
  """The formulation, and multiply-accumulates per byte of forward and backward."""
  _, n, size, cin, cout, k, strides, groups = row
  pad, out = (((k - 1) // 2,) * 2,) * 2, n * (-(-size // strides))**2 * cout
  conv = Conv((n, size, size, cin), (k, k, cin // groups, cout), (strides,) * 2, (1, 1), pad, groups)
  return fastest(conv), 3 * out * k * k * cin / groups / (4 * (3 * n * size * size * cin + 3 * out))


def convolutions(args):
  """A line for each convolution, and medians over the kinds."""
  found = []
  for row in grid(args.all):
    if row[0] not in args.kinds:
      continue
    for forward in ((False, True) if args.all else (False,)):
      contenders = {'effjax': with_jax(row, None, forward), 'lax': with_jax(row, 'lax', forward)}
      if torch:
        contenders['torch'] = with_torch(row, forward)
      times = measure(contenders, args.rounds)
      gain, text = ratio(times['lax'], times['effjax'])
      behind, other = ratio(times['effjax'], times['torch']) if torch else (float('nan'), 'not installed')
      how, intensity = chosen(row)
      found.append((row, forward, gain, behind))
      print(f'{row[0]:9} {str(row[1:]):34} {"fwd" if forward else "fwd+bwd":7} {how:7} {intensity:6.1f} MAC/byte; '
            f'{statistics.median(times["effjax"]):8.2f} ms; lax / effjax {text}; effjax / torch {other}', flush=True)
  for kind in args.kinds:
    rows = [row for row in found if row[0][0] == kind and not row[1]]
    if rows:
      gains, behind = [row[2] for row in rows], [row[3] for row in rows]
      print(f'{kind}: forward and backward, median of {len(rows)}: lax / effjax {statistics.median(gains):.1f} (least '
            f'{min(gains):.1f}), effjax / torch {statistics.median(behind):.2f} (most {max(behind):.2f})')
  return found


def on_lax(fn):
  """The same function with every convolution and pool by lax."""
  def bind(eqn, args):
    params = eqn.params | {'formulation': 'lax'} if 'formulation' in eqn.params else eqn.params
    return execute(eqn._replace(params=params), args)

  def run(*args):
    program = trace(fn, *args)
    return jax.tree.unflatten(program.out_tree, evaluate(program, jax.tree.leaves(args), bind))
  return run


class FlaxNorm(Block):
  """Flax's in place of `effjax.layers.batch_norm.BatchNorm`."""
  activation: Callable | None = None
  scale_init: Callable = nn.initializers.ones

  @nn.compact
  def __call__(self, x, train):
    bn = nn.BatchNorm(not train, momentum=.9, epsilon=self.epsilon, scale_init=self.scale_init)
    nn.share_scope(self, bn)
    return bn(x) if self.activation is None else self.activation(bn(x))


def on_flax(net):
  """A step of the same network as a plain Flax one computes it, compiled."""
  with unittest.mock.patch('effjax.layers.conv_bn.BatchNorm', FlaxNorm):
    once = step(net, on_lax)
    once()
  return once


def step(net, wrap):
  """A call of one training step: forward, backward, momentum."""
  x = jnp.asarray(np.random.default_rng(0).normal(size=(32, 32, 32, 3)), jnp.float32)
  labels = jnp.arange(32) % 10
  variables = jax.jit(lambda key: net.init(key, x, False))(jax.random.key(0))
  optimizer = optax.sgd(.01, .9)

  def forward(params, stats, x):
    return net.apply({'params': params, 'batch_stats': stats}, x, True, mutable=['batch_stats'])

  def update(params, stats, state, x):
    def loss(params):
      logits, new = wrap(forward)(params, stats, x)
      return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels)), new['batch_stats']
    (_, stats), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    change, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, change), stats, state

  params, stats = variables['params'], variables['batch_stats']
  run, held = jax.jit(update), [(params, stats, optimizer.init(params))]

  def once():
    held[0] = jax.block_until_ready(run(*held[0], x))
  return once


def torch_step(make):
  """The same in PyTorch."""
  net = make(num_classes=10).to(memory_format=torch.channels_last).train()
  optimizer = torch.optim.SGD(net.parameters(), .01, .9)
  x, labels = torch.randn(32, 3, 32, 32).to(memory_format=torch.channels_last), torch.arange(32) % 10

  def run():
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(x), labels).backward()
    optimizer.step()
  return run


@functools.cache
def with_torchvision():
  """torchvision, whose operators for boxes do not load beside every PyTorch; the networks here need none."""
  sys.modules['torchvision._meta_registrations'] = types.ModuleType('none')
  torch.library.define('torchvision::nms', '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
  import torchvision
  return torchvision


def networks(args):
  """A training step of two networks."""
  for name, theirs in (('mobilenet_v2', 'mobilenet_v2'), ('shufflenet_v2_x1_0', 'shufflenet_v2_x1_0')):
    net = models.create(name, num_classes=10)
    contenders = {'effjax': step(net, lambda fn: fn), 'lax': on_flax(net)}
    try:
      torchvision = with_torchvision()
      contenders['torch'] = torch_step(getattr(torchvision.models, theirs))
    except (ImportError, AttributeError) as error:
      print(f'no torchvision here ({error})')
    times = measure(contenders, args.rounds)
    print(f'{name}, training step at 32x32, batch 32: {statistics.median(times["effjax"]):.1f} ms; lax / effjax '
          f'{ratio(times["lax"], times["effjax"])[1]}' +
          (f'; effjax / torch {ratio(times["effjax"], times["torch"])[1]}' if 'torch' in times else ''), flush=True)


def plot(found, path):
  """Both ratios of every row, on logarithmic axes."""
  import matplotlib
  matplotlib.use('agg')
  import matplotlib.pyplot as plt
  figure, axes = plt.subplots()
  for kind in KINDS:
    rows = [row for row in found if row[0][0] == kind and not row[1]]
    axes.scatter([row[2] for row in rows], [row[3] for row in rows], label=kind)
  axes.set(xscale='log', yscale='log', xlabel='time of lax / time of effjax', ylabel='time of effjax / time of PyTorch',
           title='Convolutions, forward and backward')
  axes.legend()
  figure.savefig(path)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=11)
  parser.add_argument('--kinds', nargs='*', choices=KINDS, default=list(KINDS))
  parser.add_argument('--all', action='store_true', help='the larger grid, and the forward pass alone')
  parser.add_argument('--networks', action='store_true', help='training steps instead of convolutions')
  parser.add_argument('--keep-memory', action='store_true', help="freed memory stays: effjax.train.keep_memory")
  parser.add_argument('--plot', type=pathlib.Path, metavar='FILE.png')
  args = parser.parse_args()
  if args.keep_memory and not keep_memory():
    parser.error('--keep-memory: the C library of this system has no mallopt')
  print(f'jax {jax.__version__}, {"torch " + torch.__version__ if torch else "no torch (see the head of the file)"}, '
        f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}')
  if args.networks:
    networks(args)
  else:
    found = convolutions(args)
    if args.plot:
      plot(found, args.plot)
  print(f'load at the end {os.getloadavg()[0]:.1f}')


if __name__ == '__main__':
  main()
