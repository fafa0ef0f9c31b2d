"""What others' quantization-aware training costs: `python quantize_others.py`, with `pip install qwix torch==2.13.0`.

ResNet-20 at 32x32, batch 64, momentum, BatchNorm by the batch, weights and activations of 8 bits. On one plain Flax
network: effjax (LSQ weights, LSQ+ activations, learned), and qwix's QtProvider (scales from the absolute maximum, at
each convolution's inputs). On the same network in PyTorch: torch.ao's fake quantization (scales from moving averages).
Each over the float step of its own network, all in turn in one process; medians of the ratios by round, and quartiles.
"""
import argparse
import os
import statistics

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from quantize import KEY, measured

from effjax import quantize
from effjax.reparam import at, chain
from effjax.train import keep_memory

BATCH = 64


class ResNet20(nn.Module):
  """Plain Flax: nothing of effjax."""

  @nn.compact
  def __call__(self, x, train):
    norm = lambda x: nn.BatchNorm(not train, momentum=.9)(x)
    conv = lambda x, features, strides, size=3: nn.Conv(features, (size, size), strides, use_bias=False)(x)
    x = nn.relu(norm(conv(x, 16, 1)))
    for stage, features in enumerate((16, 32, 64)):
      for block in range(3):
        strides = 2 if stage and not block else 1
        y = norm(conv(nn.relu(norm(conv(x, features, strides))), features, 1))
        x = nn.relu(y + (conv(x, features, strides, 1) if strides == 2 else x))
    return nn.Dense(10)(x.mean((1, 2)))


def prepared(net, learned=False):
  """A training step, to be compiled, and where it starts; `learned`: with effjax's quantizers."""
  x, labels = jnp.asarray(images(), jnp.float32), jnp.arange(BATCH) % 10
  variables, tx = jax.jit(lambda key: net.init(key, x, False))(KEY), optax.sgd(.01, .9)
  forward = lambda variables, x: net.apply(variables, x, True, mutable=['batch_stats'])
  apply, ranges = lambda ranges, variables, x: forward(variables, x), {}
  if learned:
    apply, ranges = quantize.activations(forward, variables, x)
  reparam = at('.*kernel', quantize.lsq(8)) if learned else chain()
  slots = jax.jit(reparam.init)(KEY, variables['params'])

  def loss(trained, stats):
    weights = reparam.apply(*trained[:2], slots.state, KEY)
    logits, new = apply(trained[2], {'params': weights, 'batch_stats': stats}, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new['batch_stats']

  def step(trained, stats, state):
    (_, stats), gradient = jax.value_and_grad(loss, has_aux=True)(trained, stats)
    change, state = tx.update(gradient, state)
    return optax.apply_updates(trained, change), stats, state

  trained = slots.theta, slots.phi, ranges
  return jax.jit(step), (trained, variables['batch_stats'], tx.init(trained))


def images():
  return np.random.default_rng(0).normal(size=(BATCH, 32, 32, 3))


def with_qwix(net):
  """The same with qwix's quantizers."""
  import qwix
  return prepared(qwix.quantize_model(net, qwix.QtProvider([qwix.QtRule(weight_qtype='int8', act_qtype='int8')])))


def with_torch(quantized):
  """A call of one step of the same network in PyTorch."""
  import torch
  from torch.ao.quantization import get_default_qat_qconfig, prepare_qat
  conv = lambda i, o, s, k=3: torch.nn.Conv2d(i, o, k, s, k // 2, bias=False)

  class Block(torch.nn.Module):
    def __init__(self, i, o, strides):
      super().__init__()
      self.a, self.b = conv(i, o, strides), conv(o, o, 1)
      self.na, self.nb = torch.nn.BatchNorm2d(o), torch.nn.BatchNorm2d(o)
      self.short = conv(i, o, strides, 1) if strides == 2 else torch.nn.Identity()
      self.first, self.last = torch.nn.ReLU(), torch.nn.ReLU()
      self.add = torch.ao.nn.quantized.FloatFunctional()

    def forward(self, x):
      return self.last(self.add.add(self.nb(self.b(self.first(self.na(self.a(x))))), self.short(x)))

  widths = [16] * 4 + [32] * 3 + [64] * 3
  blocks = [Block(i, o, 2 if i != o else 1) for i, o in zip(widths, widths[1:])]
  stem = [torch.ao.quantization.QuantStub(), conv(3, 16, 1), torch.nn.BatchNorm2d(16), torch.nn.ReLU()]
  head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 10)]
  net = torch.nn.Sequential(*stem, *blocks, *head)
  net = net.to(memory_format=torch.channels_last).train()
  if quantized:
    net.qconfig = get_default_qat_qconfig('x86')
    net = prepare_qat(net)
  optimizer = torch.optim.SGD(net.parameters(), .01, .9)
  x = torch.tensor(images().transpose(0, 3, 1, 2), dtype=torch.float32).to(memory_format=torch.channels_last)
  labels = torch.arange(BATCH) % 10

  def run(*_):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(x), labels).backward()
    optimizer.step()
    return ()
  return run, ()


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=15)
  args = parser.parse_args()
  keep_memory()
  print(f'jax {jax.__version__}, {jax.devices()[0].device_kind}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}')
  net = ResNet20()
  contenders = {'float': prepared(net), 'effjax': prepared(net, True), 'qwix': with_qwix(net),
                'torch': with_torch(False), 'torch.ao': with_torch(True)}
  first, times = measured(contenders, args.rounds)
  for name, base in (('effjax', 'float'), ('qwix', 'float'), ('torch.ao', 'torch'), ('float', 'torch')):
    low, middle, high = statistics.quantiles([a / b for a, b in zip(times[name], times[base], strict=True)], n=4)
    print(f'{name} over {base}: {middle:.2f} ({low:.2f} to {high:.2f}); first call {first[name]:.1f} s and '
          f'{first[base]:.1f} s')


if __name__ == '__main__':
  main()
