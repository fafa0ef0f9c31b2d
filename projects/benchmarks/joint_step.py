"""What a joint step, quantization-aware training and gates cost over the float step: `python joint_step.py`.

All steps run in turn in one process (A, B, C, ..., A, B, C, ...), so that a ratio is of neighbours in time.
"""
import argparse
import os
import statistics
import time
import timeit

import jax
import jax.numpy as jnp
import optax

from effjax import cost, data, graph, quantize, search, sparsify, train
from effjax.cli.phases import distillation, fixed_forward, flax_forward, teacher
from effjax.reparam import at, chain, over

KEY = jax.random.key(0)
BATCH, HINT = 64, 'head/conv'
PAIRS = {  # what: (its step, the float step of the same network)
    'joint search of the supernet': ('joint', 'supernet'), 'gates on the supernet': ('gated', 'supernet'),
    'LSQ weights and LSQ+ activations on the baseline': ('qat', 'baseline')}


def initialised(net, x):
  """Parameters, statistics and the network in inference mode."""
  variables = jax.jit(lambda key: net.init(key, x, False))(KEY)
  params, stats = variables['params'], {'batch_stats': variables['batch_stats']}
  return params, stats, lambda p, x: net.apply({'params': p, **stats}, x, False)


def prepared(forward, reparam, params, stats, batch, **options):
  """A compiled step and its first state."""
  augment = lambda keys, images: data.augment(keys, images, **data.standard('digits', images.shape[1:]))
  terms = [train.cross_entropy(), *options.pop('terms', [])]
  objective = train.objective(forward, terms, augment=augment, **options)
  slots = jax.jit(reparam.init)(KEY, params)
  adam = optax.adam(1e-3)
  optimizer = train.optimizer(reparam, slots, weights=adam, parameters=adam, decisions=adam)
  state = train.init_state(objective, reparam, optimizer, slots, stats, batch, KEY)
  return train.compile_step(train.make_step(objective, reparam, optimizer)), state


def steps(batch):
  """The steps by name, each ready to be compiled, and the multiply-accumulates of the supernet for one image."""
  x = data.normalize(jnp.asarray(batch['image']))
  super_net, small_net = search.MBConvNet(10), search.MBConvNet(10, operators=('mb6_k3',))
  params, stats, fn = initialised(super_net, x[:1])
  plain_params, plain_stats, plain_fn = initialised(small_net, x[:1])
  channels, profile = graph.channels(fn, params, x[:1]), graph.profile(fn, params, x[:1])
  costs = {'flash_bytes': cost.flash_bytes, 'macs': cost.macs}
  budgets = {name: train.Budget(lambda facts, f=f: f(profile, facts), 1e4) for name, f in costs.items()}
  gates = over(channels, sparsify.hard_concrete())
  joint = chain(at('.*choice', search.gumbel(temperature=1.)), at('.*kernel', quantize.mixed_bits((4, 8))), gates)
  taught = dict(terms=distillation({HINT: HINT}, 1.), teacher=teacher(plain_fn, plain_params, [HINT]))
  aware = quantize.aware(plain_fn, plain_params, x)
  ready = {
      'supernet': prepared(flax_forward(super_net), chain(), params, stats, batch),
      'joint': prepared(flax_forward(super_net, [HINT]), joint, params, stats, batch, budgets=budgets, **taught),
      'gated': prepared(flax_forward(super_net), gates, params, stats, batch),
      'baseline': prepared(flax_forward(small_net), chain(), plain_params, plain_stats, batch),
      'qat': prepared(fixed_forward(aware.apply), aware.reparam, aware.params, (), batch)}
  return ready, float(cost.macs(profile, {}))


def measured(ready, batch, rounds, repeats):
  """(seconds of the first call: trace, compile, one step; seconds a step by round) by name, taking turns."""
  first, times, states = {}, {name: [] for name in ready}, {}
  for name, (step, state) in ready.items():
    start = time.perf_counter()
    states[name] = jax.block_until_ready(step(state, batch))[0]
    first[name] = time.perf_counter() - start
  for _ in range(rounds):
    for name, (step, _) in ready.items():
      start = time.perf_counter()
      for _ in range(repeats):
        states[name], metrics = step(states[name], batch)
      jax.block_until_ready((states[name], metrics))
      times[name].append((time.perf_counter() - start) / repeats)
  return first, times


def bound(median, macs):
  """One line: arithmetic done against what a large matrix product reaches, and where the joint step's time goes."""
  a, product = jnp.ones((1024, 1024)), jax.jit(jnp.matmul)
  seconds = timeit.repeat(lambda: product(a, a).block_until_ready(), number=1, repeat=10)
  peak, reached = 2 * 1024**3 / min(seconds) / 1e9, 6 * macs * BATCH / median['supernet'] / 1e9
  ms = {name: 1e3 * seconds for name, seconds in median.items()}
  return (f'bound: the float step of the supernet does {reached:.1f} GFLOP/s of the {peak:.0f} of a 1024x1024 product, '
          'so memory traffic and small kernels bound it, not arithmetic. '
          f'Of the {ms["joint"]:.1f} ms of a joint step {ms["supernet"]:.1f} are the supernet itself (every operator: '
          f'{ms["supernet"] / ms["baseline"]:.1f} baselines), {ms["gated"] - ms["supernet"]:.1f} the gates, '
          f'{ms["joint"] - ms["gated"]:.1f} bits, choices, costs and the teacher.')


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rounds', type=int, default=40)
  parser.add_argument('--repeats', type=int, default=3, help='steps of one kind in a round')
  args = parser.parse_args()
  batch = jax.tree.map(jnp.asarray, data.batches(data.load().train, BATCH, 0)(0))
  ready, macs = steps(batch)
  first, times = measured(ready, batch, args.rounds, args.repeats)
  median = {name: statistics.median(values) for name, values in times.items()}
  print(f'jax {jax.__version__}, {jax.devices()[0].device_kind}, {os.cpu_count()} cores, batch {BATCH} of 8x8 digits, '
        f'{args.rounds} rounds of {args.repeats} steps; load at the end {os.getloadavg()[0]:.1f}')
  print(f'{"step":10} {"ms, median":>10} {"compile, s":>12}')
  for name in times:
    print(f'{name:10} {1e3 * median[name]:10.1f} {first[name]:12.1f}')
  for what, (of, over_) in PAIRS.items():
    by_round = sorted(a / b for a, b in zip(times[of], times[over_], strict=True))
    low, _, high = statistics.quantiles(by_round, n=4)
    print(f'{what}: {statistics.median(by_round):.2f} times its float step (quartiles {low:.2f} to {high:.2f})')
  print(bound(median, macs))


if __name__ == '__main__':
  main()
