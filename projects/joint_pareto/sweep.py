"""Accuracy over bytes: one joint search beside the same in sequence and beside each alone: `python sweep.py`.

For each share of the bytes of the int8 baseline and each way to get there, from the start: a search of `--steps`, then
quantization-aware training of `--tune`, then the file, which is verified and run. All have the same steps, batches,
teacher and optimizers. The ways differ in what the search decides:

  joint       operators, channels and bits in one loss.
  channels+bits   those two in one loss, with the operators of the baseline.
  sequence    operators, then channels, then bits, a third of the steps each; bits, which are 4 or 8, save the last
              quarter of the bytes, operators and channels go one half of the way there (in log bytes) each.
  operators, channels, bits   that alone; all else as in the baseline, 8 bits where bits are not searched.
  random      an architecture of the space drawn uniformly, with 8 bits; one for each share, whatever its bytes are.

A share that a way cannot reach is said and left out. The last lines give, per way, the area under its front: the best
accuracy at no more than b bytes, averaged over log b from 1/16 of the baseline to all of it.
"""
import argparse
import json
import math
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import cost, data, graph, quantize, search, sparsify, train
from effjax.cli import joint
from effjax.cli.phases import (
  IDENTITY,
  Phase,
  distillation,
  fixed_forward,
  flax_forward,
  initial,
  run_phase,
  setting_of,
  teacher,
)
from effjax.cli.phases import (
  parts as parts_of,
)
from effjax.errors import EffjaxError
from effjax.reparam import Fact, Reparam, at, chain, over
from effjax.search import encoding
from effjax.train.memory import keep_memory

PARTS = ('operators', 'channels', 'bits')
WAYS = {'joint': (PARTS,), 'channels+bits': (PARTS[1:],), 'sequence': (PARTS[:1], PARTS[1:2], PARTS[2:]),
        'operators': (PARTS[:1],), 'channels': (PARTS[1:2],), 'bits': (PARTS[2:],), 'random': ()}
LEAST = 1 / 16  # of the baseline's bytes: where the area begins


class Network(NamedTuple):
  """What a stage starts from and leaves.

  evaluated: statistics -> `fn(params, x)` in inference mode. forward: as it trains. plain: the Linen network, if it is
  one still. bits: of kernels, where they were chosen.
  """
  evaluated: Callable
  forward: Callable
  params: Any
  stats: Any
  plain: Any = None
  bits: dict[str, int] = {}

  @property
  def fn(self):
    """In inference mode, with the statistics at hand."""
    return self.evaluated(self.stats)


def linen(net, params, stats) -> Network:
  """A Linen network with these parameters and statistics."""
  evaluated = lambda stats: lambda p, x: net.apply({'params': p, **stats}, x, False)
  return Network(evaluated, flax_forward(net), params, stats, net)


def rules(parts, steps, channels) -> Reparam:
  """What is relaxed in a stage: as in `effjax joint`."""
  temperature = optax.exponential_decay(2., steps, .1)
  made = {'operators': lambda: at('.*choice', search.gumbel(temperature=temperature)),
          'bits': lambda: at('.*kernel', quantize.mixed_bits(joint.WIDTHS, temperature=temperature)),
          'channels': lambda: over(channels, sparsify.hard_concrete(initial_keep=.98))}
  return chain(*(make() for part, make in made.items() if part in parts))


def stage(setting, network: Network, parts, steps, rate, limit, taught, name) -> Network:
  """One search under a budget of bytes: the network that it leaves."""
  fn, params, x = network.fn, network.params, setting.spec()
  channels, profile = graph.channels(fn, params, x), graph.profile(fn, params, x)
  eight = {row.path: Fact(bits=jnp.float32(8)) for row in profile.rows}
  paid = lambda facts: train.held(facts, channels.choices if 'channels' in parts else ())  # as in `effjax joint`
  budgets = {'flash_bytes': train.Budget(lambda facts: cost.flash_bytes(profile, eight | paid(facts)), limit)}
  narrow = {path: Fact(bits=jnp.float32(min(joint.WIDTHS) if 'bits' in parts else 8)) for path in eight}
  train.check_feasible(budgets, train.smallest(budgets, channels, narrow, gated='channels' in parts))
  reparam = rules(parts, steps, channels)
  state = run_phase(setting, Phase(name, steps, rate, 1e-4, 5e-2), network.forward, reparam,
                    reparam.init(setting.key(name), params), network.stats, budgets=budgets,
                    terms=distillation({}, 1.), teacher=taught)
  facts = train.decide(channels, reparam, state.slots, budgets)[0]
  if parts == PARTS[:1]:
    return derived(setting, network, facts, reparam.apply(*state.slots, None), state.model_state)
  stats = reestimated(setting, network, train.latent(channels, state.slots, facts), state.model_state)
  hard = train.harden(network.evaluated(stats), channels, reparam, state.slots, setting.example(), budgets=budgets)
  return Network(lambda stats: hard.fn, fixed_forward(hard.fn), hard.params, (), bits=hard.bits)


def derived(setting, network, facts, weights, stats) -> Network:
  """The architecture that was found as a Linen network, whose BatchNorm trains on."""
  x = jnp.zeros(setting.spec().shape)
  space = encoding.space_of(network.plain, x, False)
  net = search.Derived(network.plain, {path: names[int(facts[path].choice.argmax())] for path, names in space.items()})
  return linen(net, *parts_of(net.inherited({'params': weights, **stats}, x, False)))


def reestimated(setting, network, weights, stats):
  """BatchNorm's statistics for weights that are fixed."""
  if not stats:
    return stats
  batch = data.batches(setting.dataset.train, setting.batch_size, setting.seed)
  return train.reestimate(network.forward, weights, stats, [batch(i) for i in range(10)])


def started(setting, way, options, seed) -> Network:
  """The network that a way starts from, with fresh parameters."""
  searched = 'operators' in sum(WAYS[way], ())
  make = lambda operators: joint.networks(options, setting, operators)[1]
  net = make(joint.OPERATORS if searched or way == 'random' else joint.BASELINE)
  if way == 'random':
    space = encoding.space_of(net, jnp.zeros(setting.spec().shape), False)
    net = search.Derived(net, encoding.draw(jax.random.key(seed), space))
  return linen(net, *initial(net, setting, way))


def limits(stages, share):
  """What each stage of a way may leave of the baseline's bytes."""
  if len(stages) < 2:
    return [share]
  before = share / .75
  return [before ** .5, before, share]


def searched(setting, way, options, bytes_of_baseline, share, taught, number) -> Network:
  """The stages of a way, each a part of the way to its share of the bytes."""
  network, stages, name = started(setting, way, options, 100 * setting.seed + number), WAYS[way], f'{way}_{share}'
  for i, (parts, limit) in enumerate(zip(stages, limits(stages, share)), 1):
    network = stage(setting, network, parts, options.steps // len(stages), joint.RATE if i == 1 else joint.LATER_RATE,
                    bytes_of_baseline * limit, taught, f'{name}_{i}')
  if not stages:
    only = Phase(f'{name}_1', options.steps, joint.RATE)  # its own checkpoints, as of a stage
    state = run_phase(setting, only, network.forward, IDENTITY,
                      IDENTITY.init(setting.key(name), network.params), network.stats,
                      terms=distillation({}, 1.), teacher=taught)
    network = linen(network.plain, state.slots.theta, state.model_state)
  return network


def point(setting, way, options, baseline, bytes_of_baseline, share, tune, number) -> dict[str, Any]:
  """One network: searched, tuned, exported, verified, measured."""
  begin, taught = time.perf_counter(), teacher(*baseline)
  network = searched(setting, way, options, bytes_of_baseline, share, taught, number)
  last = Phase(f'{way}_{share}', tune, joint.LATER_RATE, 2e-4)
  row, checks = joint.deploy(setting, last, joint.Trained(network.fn, network.params), baseline, network.bits)
  return {'way': way, 'share': share, 'seed': setting.seed, 'seconds': time.perf_counter() - begin,
          'same': checks['codes_equal'] == 1. and not checks['audit_problems'], **row}


def area(points, bytes_of_baseline: float) -> float:
  """The best accuracy at no more than b bytes, averaged over log b from LEAST of the baseline to all of it."""
  found = sorted((max(p['flash_bytes'] / bytes_of_baseline, LEAST), p['accuracy']) for p in points)
  edges = [LEAST, *(share for share, _ in found), 1.]
  best = [0., *np.maximum.accumulate([a for _, a in found])]
  return sum(a * max(math.log(min(right, 1.) / min(left, 1.)), 0.)
             for a, left, right in zip(best, edges, edges[1:])) / -math.log(LEAST)


def main(args):
  keep_memory()
  points, areas = [], {}
  for seed in args.seeds:
    options = joint.Options(data=args.data, data_dir=args.data_dir, steps=args.steps, batch_size=args.batch_size,
                            seed=seed)
    setting = setting_of('sweep', options, args.folder / f'seed{seed}')
    setting.folder.mkdir(parents=True, exist_ok=True)
    baseline = joint.train_baseline(options, setting)
    int8 = joint.deploy(setting, Phase('int8_baseline', args.tune, joint.LATER_RATE, 2e-4), baseline, baseline, {})[0]
    print(f'seed {seed}: int8 baseline {100 * int8["accuracy"]:.2f} %, {int8["flash_bytes"]:,.0f} bytes', flush=True)
    for way in args.ways:
      for number, share in enumerate(args.shares):
        try:
          points.append(point(setting, way, options, baseline, int8['flash_bytes'], share, args.tune, number))
        except EffjaxError as error:
          if 'budget' not in str(error):  # anything else is no property of the way
            raise
          print(f'seed {seed}: {way} at {share}: {error}', flush=True)
          continue
        told(points[-1], int8)
        (args.folder / 'points.json').write_text(json.dumps(points, default=float, indent=2) + '\n')
      own = [p for p in points if (p['way'], p['seed']) == (way, seed)]
      areas.setdefault(way, []).append(area(own, int8['flash_bytes']))
  print('\n'.join(table(areas)))


def told(p, int8):
  """One line of what was found."""
  print(f'seed {p["seed"]}: {p["way"]} at {p["share"]}: {100 * p["accuracy"]:.2f} %, {p["flash_bytes"]:,.0f} bytes '
        f'({p["flash_bytes"] / int8["flash_bytes"]:.2f}), {p["macs"]:,.0f} MACs, {p["latency_ms"]:.3f} ms, '
        f'{"bitwise" if p["same"] else "NOT the simulation"}, {p["seconds"]:.0f} s', flush=True)


def table(areas):
  """A row for each way."""
  yield '| way | area [%], each seed | mean |'
  yield '|---|---|---|'
  for way, found in areas.items():
    yield f'| {way} | {", ".join(f"{100 * a:.2f}" for a in found)} | {100 * statistics.mean(found):.2f} |'


if __name__ == '__main__':
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data', default='cifar10')
  parser.add_argument('--data-dir', help='where TensorFlow Datasets keeps it')
  parser.add_argument('--folder', type=pathlib.Path, default=pathlib.Path('runs/joint_pareto'),
                      help='files, checkpoints, points.json; a run that was stopped goes on there')
  parser.add_argument('--ways', nargs='+', choices=WAYS, default=list(WAYS))
  parser.add_argument('--shares', nargs='+', type=float, default=[.125, .25, .5])
  parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
  parser.add_argument('--steps', type=int, default=3000)
  parser.add_argument('--tune', type=int, default=1500)
  parser.add_argument('--batch-size', type=int, default=64)
  main(parser.parse_args())
