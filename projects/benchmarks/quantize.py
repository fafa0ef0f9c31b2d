"""What quantization-aware training costs over the float step: `python quantize.py [--networks NAME ...]`.

ResNet-20 (batch 64) and MobileNetV2 (batch 32) at 32x32, BatchNorm by the batch, momentum: a step with 8-bit weights
(LSQ), with 8-bit activations (LSQ+ at every tensor that the device stores), and with both, all scales learned, beside
the float step. All steps run in turn in one process; medians of the ratios by round, and quartiles. Compile time is
that of the first call. It runs on whatever device JAX has.
"""
import argparse
import os
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import first_calls, measure, ratio

from effjax import models, quantize
from effjax.reparam import at, chain
from effjax.train import keep_memory

NETWORKS = {'resnet20_cifar': 64, 'mobilenet_v2': 32}
KEY = jax.random.key(0)
KINDS = {'float': (False, False), 'weights': (True, False), 'activations': (False, True), 'both': (True, True)}


def prepared(net, batch, weights, activations):
  """A call of one training step of a Flax network, quantized or not; the first one compiles."""
  x = jnp.asarray(images(batch), jnp.float32)
  labels, tx = jnp.arange(batch) % 10, optax.sgd(.01, .9)
  variables = jax.jit(lambda key: net.init(key, x, False))(KEY)
  forward = lambda variables, x: net.apply(variables, x, True, mutable=['batch_stats'])
  apply, ranges = lambda ranges, variables, x: forward(variables, x), {}
  if activations:
    apply, ranges = quantize.activations(forward, variables, x)
  reparam = at('.*kernel', quantize.lsq(8)) if weights else chain()
  slots = jax.jit(reparam.init)(KEY, variables['params'])

  def loss(trained, stats):
    theta, phi, ranges = trained
    weights = reparam.apply(theta, phi, slots.state, KEY)
    logits, new = apply(ranges, {'params': weights, 'batch_stats': stats}, x)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels)), new['batch_stats']

  @jax.jit
  def step(trained, stats, state):
    (_, stats), gradient = jax.value_and_grad(loss, has_aux=True)(trained, stats)
    change, state = tx.update(gradient, state)
    return optax.apply_updates(trained, change), stats, state

  trained = slots.theta, slots.phi, ranges
  held = [(trained, variables['batch_stats'], tx.init(trained))]

  def once():
    held[0] = jax.block_until_ready(step(*held[0]))
  return once


def images(batch):
  """As many of 32x32 pixels."""
  return np.random.default_rng(0).normal(size=(batch, 32, 32, 3))


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--networks', nargs='+', choices=NETWORKS, default=list(NETWORKS))
  parser.add_argument('--rounds', type=int, default=25)
  parser.add_argument('--batch', type=int, help='instead of 64 and 32')
  args = parser.parse_args()
  keep_memory()
  print(f'jax {jax.__version__}, {jax.devices()[0].device_kind}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}')
  for name in args.networks:
    batch, net = args.batch or NETWORKS[name], models.create(name, num_classes=10)
    contenders = {kind: prepared(net, batch, *which) for kind, which in KINDS.items()}
    first, times = first_calls(contenders), measure(contenders, args.rounds)
    print(f'{name}, batch {batch}: float step {statistics.median(times["float"]):.1f} ms, '
          f'first call {first["float"]:.1f} s')
    for kind in list(KINDS)[1:]:
      print(f'  {kind:12}{ratio(times[kind], times["float"])[1]} of the float step; first call '
            f'{first[kind] / first["float"]:.2f} of its', flush=True)


if __name__ == '__main__':
  main()
