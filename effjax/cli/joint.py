"""The main job: from a float baseline to an exact int8 file through one joint search."""
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import cost, data, export, graph, quantize, report, search, sparsify, train, tree
from effjax.cli import results
from effjax.cli.phases import (
  IDENTITY,
  Phase,
  Setting,
  accuracy,
  batches,
  check_logits,
  distillation,
  fixed_forward,
  flax_forward,
  initial,
  parts,
  reestimated,
  run_phase,
  setting_of,
  teacher,
  user_class,
)
from effjax.errors import EffjaxError
from effjax.reparam import Fact, Reparam, at, chain, over
from effjax.tree import PyTree

WIDTHS = (4, 8)  # bits that the target's convolutions can read
OPERATORS = ('mb3_k3', 'mb6_k3', 'mb3_k5', 'sep_k3', 'skip')
BASELINE = ('mb6_k3',)
FLASH, MACS = .30, .40  # of the baseline's int8 network
RATE, LATER_RATE = 1e-2, 3e-3  # peaks of the weights': from the start; of what is trained already, which more destroys
CALLED = 'give package.module:Class, called as Class(num_classes) and then (x, train)'
HINT = 'head/conv'  # the tap before the global mean, where student and baseline are compared


class Options(NamedTuple):
  """The command line of `effjax joint`, as kept in the run's `options.json`."""
  data: str = 'digits'
  data_dir: str | None = None
  flash: float | None = None
  macs: float | None = None
  seed: int = 0
  steps: int = 800
  batch_size: int = 64
  bilevel: str | None = None
  model: str | None = None
  where: str = '.*kernel'
  parallel: str = 'jit'
  devices: int = 1
  every_steps: int = 500


class Trained(NamedTuple):
  """A float network: `fn(params, x)` in inference mode."""
  fn: Callable
  params: PyTree


class Space(NamedTuple):
  """What is searched: the supernet's channels and profile, and the budgets of its costs."""
  channels: graph.Channels
  profile: graph.Profile
  budgets: dict[str, train.Budget]


class Found(NamedTuple):
  """The search's result: the hardened network, the space it is from, the probabilities at the end of the search."""
  hard: train.Hardened
  space: Space
  soft: dict[str, Fact]


def run(options: Options, folder: pathlib.Path) -> dict[str, Any]:
  """Runs everything in `folder`, or what is left of it; the results as `effjax.report.schema` says."""
  start, setting = time.time(), setting_of('joint', options, folder)
  space = plan(options, setting)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'options.json').write_text(json.dumps(options._asdict(), indent=2) + '\n')
  baseline = train_baseline(options, setting)
  found = search_network(options, setting, space, baseline)
  before = Phase('int8_baseline', _part(options, .2), 5e-4, 1e-4)
  int8 = deploy(setting, before, baseline, baseline, {})
  tuning = Phase('result', _part(options, 1.5), LATER_RATE, 2e-4)
  result = deploy(setting, tuning, Trained(found.hard.fn, found.hard.params), baseline, found.hard.bits)
  summary = {
      'baseline': _float_row(setting, baseline), 'int8_baseline': int8[0], 'result': result[0],
      'budgets': {name: {'asked': b.limit, 'reached': result[0][name]} for name, b in space.budgets.items()},
      'verify': result[1], 'seed': options.seed, 'data': options.data, 'seconds': time.time() - start,
      'versions': results.versions(), 'layers': results.layers(space.profile, found.hard),
      'operators': results.operators(found.hard, found.soft, space.channels, OPERATORS)}
  report.write(folder, summary, results.history(folder, space.budgets))
  return summary


def plan(options: Options, setting: Setting) -> Space:
  """The space to search, from shapes alone: what can be wrong with the options is found before anything is trained."""
  export.require()
  train.check_devices(setting.how, len(setting.devices), setting.batch_size)
  batches(setting, options.bilevel)
  baseline = _shapes(options, setting, BASELINE)
  check_logits(*baseline, setting)
  supernet, example = _shapes(options, setting, OPERATORS), setting.spec()
  channels, profile = graph.channels(*supernet, example), graph.profile(*supernet, example)
  limits = _limits(options, graph.profile(*baseline, example))
  costs = {'flash_bytes': cost.flash_bytes, 'macs': cost.macs}
  paid = lambda facts: train.held(facts, channels.choices)  # by channels and bits
  budget = lambda name, limit: train.Budget(lambda facts: costs[name](profile, paid(facts)), limit)
  budgets = {name: budget(name, limit) for name, limit in limits.items()}
  narrow = {path: Fact(bits=jnp.float32(WIDTHS[0])) for path in tree.select(options.where, supernet.params)}
  quantize.check_kernels(narrow, {row.path for row in profile.rows})
  train.check_feasible(budgets, train.smallest(budgets, channels, narrow))
  return Space(channels, profile, budgets)


def train_baseline(options: Options, setting: Setting) -> Trained:
  """The float network that everything is measured against and taught by."""
  net, plain = networks(options, setting, BASELINE)
  params, stats = initial(plain, setting, 'baseline')
  state = run_phase(setting, Phase('baseline', options.steps, RATE), flax_forward(net), IDENTITY,
                    IDENTITY.init(setting.key('init'), params), stats)
  return _evaluated(plain, state.slots.theta, state.model_state)


def search_network(options: Options, setting: Setting, space: Space, baseline: Trained) -> Found:
  """Operators, channels and bits in one loss, distilled from the baseline, under the budgets."""
  net, plain = networks(options, setting, OPERATORS)
  params, stats = initial(plain, setting, 'supernet')
  params = baseline.params if options.model else params  # a user's network is compressed as it was trained
  reparam, hints = _joint_reparam(options, space.channels, params), [] if options.model else [HINT]
  phase = Phase('search', options.steps, RATE, 1e-4, 5e-2, options.bilevel)
  state = run_phase(setting, phase, flax_forward(net, hints), reparam, reparam.init(setting.key('slots'), params),
                    stats, budgets=space.budgets, terms=distillation(dict.fromkeys(hints, HINT), 1.),
                    teacher=teacher(*baseline, hints))
  facts = train.decide(space.channels, reparam, state.slots, space.budgets)[0]
  stats = reestimated(setting, plain, train.latent(space.channels, state.slots, facts), state.model_state)
  fn = _evaluated(plain, params, stats).fn
  hard = train.harden(fn, space.channels, reparam, state.slots, setting.example(), budgets=space.budgets)
  return Found(hard, space, reparam.facts(state.slots, False))


def deploy(setting: Setting, phase: Phase, network: Trained, taught_by: Trained,
           bits: dict[str, int]) -> tuple[dict[str, float], dict[str, Any]]:
  """Quantization-aware fine-tuning, the file, its verification: (row of the table, checks)."""
  aware = quantize.aware(*network, setting.example(setting.batch_size), bits=bits)
  state = run_phase(setting, phase, fixed_forward(aware.apply), aware.reparam,
                    aware.reparam.init(setting.key(phase.name), aware.params), (),
                    terms=distillation({}, 1.), teacher=teacher(*taught_by))
  fixed = quantize.deployed(aware, state.slots)
  integers = export.finalize(network.fn, fixed.weights, fixed.facts, fixed.ranges, setting.example())
  path = setting.folder / ('model.tflite' if phase.name == 'result' else f'{phase.name}.tflite')
  size = export.tflite(integers, path)
  export.save(integers, path.with_suffix('.npz'))
  checks = _checks(export.verify(path, integers, test_images(setting.dataset)))
  row = results.row(graph.profile(*network, setting.example()), fixed.facts, 8, 1)
  predict = lambda x: export.simulate(integers, x)
  return row | {'accuracy': accuracy(setting, predict), 'file_bytes': size, 'params': results.count(network.params),
                'latency_ms': export.latency_ms(path)}, checks


def test_images(dataset: data.Dataset) -> jax.Array:
  """All of the test part, as the network sees it."""
  return data.normalize(jnp.asarray(dataset.test.fetch(np.arange(dataset.test.size))['image']))


def networks(options: Options, setting: Setting, operators: Sequence[str]) -> tuple[Any, Any]:
  """The network as trained (its BatchNorm averages over mapped devices), and the same for one device."""
  source = setting.dataset.train
  if options.model is None:
    strides = 1 if min(source.shape[:2]) < 24 else 2
    make = lambda axis: search.MBConvNet(source.num_classes, stem_strides=strides, operators=operators, axis_name=axis)
  else:
    model = user_class('joint', '--model', options.model, CALLED)
    make = lambda axis: model(source.num_classes, **({'axis_name': axis} if axis else {}))
  return make(setting.axis_name), make(None)


def _shapes(options, setting, operators) -> Trained:
  """A network without values: parameters are shapes, and there are no statistics yet."""
  try:
    net = networks(options, setting, operators)[1]
    init = lambda key: net.init(key, jnp.zeros(setting.spec().shape), False)
    params, stats = parts(jax.eval_shape(init, jax.random.key(0)))
  except (TypeError, AttributeError) as error:
    if options.model is None:
      raise
    reason = str(error).splitlines()[0]
    raise EffjaxError(f'joint: --model {options.model!r} does not run ({reason}): {CALLED}') from error
  return _evaluated(net, params, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), stats))


def _evaluated(net, params, stats) -> Trained:
  return Trained(lambda p, x: net.apply({'params': p, **stats}, x, False), params)


def _joint_reparam(options, channels, params) -> Reparam:
  """The choice of operators, of bits, of channels."""
  temperature = optax.exponential_decay(2., options.steps, .1)
  parts = [at(options.where, quantize.mixed_bits(WIDTHS, temperature=temperature)),
           over(channels, sparsify.hard_concrete(initial_keep=.98))]
  choices = [at('.*choice', search.gumbel(temperature=temperature))] if channels.choices else []
  return chain(*choices, *parts)


def _limits(options, profile):
  """The budgets asked for, by default shares of the baseline's int8 network."""
  facts = {row.path: Fact(bits=jnp.float32(8)) for row in profile.rows}
  flash = options.flash or FLASH * float(cost.flash_bytes(profile, facts))
  return {'flash_bytes': flash, 'macs': options.macs or MACS * float(cost.macs(profile, facts))}


def _checks(found):
  """What the report shows: agreement under LiteRT's default kernels; `report.json` holds all of it."""
  return found.to_dict() | found.xnnpack._asdict() | {'audit_problems': len(found.audit_problems)}


def _part(options, share):
  return max(1, round(options.steps * share))


def _float_row(setting, baseline):
  path = setting.folder / 'baseline.tflite'
  size = export.float_tflite(*baseline, setting.example(), path)
  predict = lambda x: baseline.fn(baseline.params, x)
  return results.row(graph.profile(*baseline, setting.example()), {}, 32, 4) | {
      'accuracy': accuracy(setting, predict), 'file_bytes': size, 'params': results.count(baseline.params),
      'latency_ms': export.latency_ms(path)}
