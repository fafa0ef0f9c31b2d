"""What others' quantization-aware training costs: `python quantize_others.py`.

It wants `pip install qwix aqtp torch==2.13.0`.
ResNet-20 at 32x32, batch 64, momentum, BatchNorm by the batch, weights and activations of 8 bits. On one plain Flax
network: effjax (LSQ weights, LSQ+ activations, learned), and qwix's QtProvider (scales from the absolute maximum, at
each convolution's inputs). On the same network in PyTorch: torch.ao's fake quantization (scales from moving averages).
Then a perceptron of three layers of 512, batch 64, where aqtp stands beside them: the convolution of aqtp 0.9.0 passes
no gradient (it rounds without an estimator, and all derivatives are 0), so that it cannot train the other network.

Each over the float step of its own network, all in turn in one process; medians of the ratios by round, and quartiles.
"""
import argparse
import os
from collections.abc import Callable

import flax.linen as nn
import jax
from quantize import images, prepared
from timing import first_calls, measure, ratio

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


class Perceptron(nn.Module):
  """Plain Flax. `dot` is a function to use instead of lax's."""
  dot: Callable | None = None

  @nn.compact
  def __call__(self, x, train):
    self.variable('batch_stats', 'unused', lambda: 0.)  # the step carries some
    x = x.reshape(len(x), -1)
    for _ in range(3):
      x = nn.relu(nn.Dense(512, dot_general=self.dot)(x))
    return nn.Dense(10, dot_general=self.dot)(x)


def with_qwix(net):
  """The same with qwix's quantizers."""
  import qwix
  rule = qwix.QtRule(weight_qtype='int8', act_qtype='int8')
  return prepared(qwix.quantize_model(net, qwix.QtProvider([rule])), BATCH, False, False)


def with_aqt():
  """The perceptron with aqtp's products: 8 bits forward, float backward."""
  from aqt.jax.v2 import config
  return prepared(Perceptron(config.fully_quantized(fwd_bits=8, bwd_bits=None)), BATCH, False, False)


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
  x = torch.tensor(images(BATCH).transpose(0, 3, 1, 2), dtype=torch.float32).to(memory_format=torch.channels_last)
  labels = torch.arange(BATCH) % 10

  def run():
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(x), labels).backward()
    optimizer.step()
  return run


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=15)
  args = parser.parse_args()
  keep_memory()
  print(f'jax {jax.__version__}, {jax.devices()[0].device_kind}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}')
  net, dense = ResNet20(), Perceptron()
  compare({'float': prepared(net, BATCH, False, False), 'effjax': prepared(net, BATCH, True, True),
           'qwix': with_qwix(net), 'torch': with_torch(False), 'torch.ao': with_torch(True)},
          (('effjax', 'float'), ('qwix', 'float'), ('torch.ao', 'torch'), ('float', 'torch')), args.rounds)
  compare({'float': prepared(dense, BATCH, False, False), 'effjax': prepared(dense, BATCH, True, True),
           'qwix': with_qwix(dense), 'aqt': with_aqt()},
          (('effjax', 'float'), ('qwix', 'float'), ('aqt', 'float')), args.rounds)


def compare(contenders, pairs, rounds):
  """Prints each pair's ratio."""
  first, times = first_calls(contenders), measure(contenders, rounds)
  for name, base in pairs:
    print(f'{name} over {base}: {ratio(times[name], times[base])[1]}; first call {first[name]:.1f} s and '
          f'{first[base]:.1f} s')


if __name__ == '__main__':
  main()
