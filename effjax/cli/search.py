"""`effjax search`: a supernet is searched, an architecture is derived and trained, and a report says what each lost."""
import dataclasses
import json
import pathlib
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import cost, data, graph, report, search, train
from effjax.cli import results
from effjax.cli.phases import (
  IDENTITY,
  Phase,
  Setting,
  accuracy,
  batches,
  check_logits,
  flax_forward,
  initial,
  parts,
  reestimated,
  run_phase,
  setting_of,
  user_class,
)
from effjax.errors import EffjaxError
from effjax.reparam import Fact, Reparam, Rule, at, chain
from effjax.search import encoding
from effjax.tree import Path, PyTree

SPACES: dict[str, Callable] = {'nb201': search.NASBench201, 'macro': search.NASBenchMacro, 'darts': search.DARTSSpace,
                               'mbconv': search.MBConvNet}
CALLED = ('give nb201, macro, darts, mbconv, or package.module:Class, a Linen network with choices in it, called as '
          'Class(num_classes) and then (x, train)')
WEIGHTINGS: dict[str, Callable[[optax.Schedule], Rule]] = {
    'softmax': lambda temperature: search.softmax(), 'sigmoid': lambda temperature: search.sigmoid(),
    'gumbel': lambda temperature: search.gumbel(temperature=temperature),
    'straight_through_gumbel': lambda temperature: search.straight_through_gumbel(temperature=temperature),
    'binary_gates': lambda temperature: search.binary_gates(), 'dirichlet': lambda temperature: search.dirichlet()}
SELECTIONS = ('largest', 'eigenvalue', 'perturbation')
SEEN = 500  # held-out images that eigenvalues and perturbations look at


class Options(NamedTuple):
  """The command line of `effjax search`, as kept in the run's `options.json`; None: the space's own."""
  space: str = 'nb201'
  data: str = 'digits'
  data_dir: str | None = None
  features: int | None = None
  cells: int | None = None
  weighting: str = 'softmax'
  bilevel: str | None = 'first'
  auxiliary_skip: bool = False
  select: str = 'largest'
  max_skips: int | None = None
  macs: float | None = None
  steps: int = 800
  retrain_steps: int = 800
  random: int = 0
  rate: float = 5e-3
  decision_rate: float = 2e-2
  seed: int = 0
  batch_size: int = 64
  parallel: str = 'jit'
  devices: int = 1
  every_steps: int = 100


class Plan(NamedTuple):
  """What is searched: `make(axis_name)` a supernet, its space, the rules, and budgets with the profile they are of."""
  make: Callable[[str | None], Any]
  space: encoding.Space
  reparam: Reparam
  budgets: dict[str, train.Budget]
  profile: graph.Profile


class Supernet(NamedTuple):
  """A supernet that was searched; `stats` are of its mixture."""
  state: train.TrainState
  probabilities: dict[Path, jax.Array]
  stats: PyTree


def run(options: Options, folder: pathlib.Path) -> dict[str, Any]:
  """Runs everything in `folder`, or what is left of it; the results as `effjax.report.searched` says."""
  start, setting = time.time(), setting_of('search', options, folder)
  made = plan(options, setting)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'options.json').write_text(json.dumps(options._asdict(), indent=2) + '\n')
  found = search_supernet(options, setting, made)
  history = observed(folder)
  architecture = selected(options, setting, made, found, history)
  network = search.Derived(_plain(made), architecture)
  p = {path: np.asarray(p) for path, p in found.probabilities.items()}
  drawn = [encoding.draw(jax.random.fold_in(setting.key('random'), i), made.space) for i in range(options.random)]
  fn, params = _fixed(setting, network)
  profile = graph.profile(fn, params, setting.example())
  summary = {
      'space': options.space, 'data': options.data, 'seed': options.seed, 'architecture': dict(architecture),
      'accuracy': {'soft': _soft(setting, made, found), 'inherited': _inherited(setting, made, found, network),
                   'retrained': retrained(options, setting, made, architecture, 'retrain')},
      'random': [retrained(options, setting, made, a, f'random{i}') for i, a in enumerate(drawn)],
      'distance': float(np.mean([search.distance_from_one_hot(jnp.asarray(q)) for q in p.values()])),
      'macs': float(cost.macs(profile, {})), 'params': results.count(params),
      'budgets': {name: b.limit for name, b in made.budgets.items()},
      'operators': [{'block': path.removesuffix('/choice'), 'path': path, 'names': names, 'probabilities': p[path],
                     'chosen': names.index(architecture[path])} for path, names in made.space.items()],
      'edges': _edges(options), 'seconds': time.time() - start, 'versions': results.versions()}
  report.write_search(folder, summary, history)
  return summary


def plan(options: Options, setting: Setting) -> Plan:
  """The supernet and its rules, from shapes alone: what can be wrong is found before anything is trained."""
  train.check_devices(setting.how, len(setting.devices), setting.batch_size)
  batches(setting, options.bilevel)
  make = _space(options, setting)
  net, x = make(None), jnp.zeros(setting.spec().shape)
  space = encoding.space_of(net, x, False)
  _check(options, net, space)
  fn, params = _fixed(setting, _without_auxiliary(net))
  check_logits(fn, params, setting)
  temperature = optax.exponential_decay(2., options.steps, .1)
  rules = [at(lambda path: path in space, WEIGHTINGS[options.weighting](temperature))]
  if options.auxiliary_skip:
    rules.append(at('auxiliary_skip', search.auxiliary_skip(optax.linear_schedule(1., 0., options.steps))))
  profile = graph.profile(fn, params, setting.spec())
  budgets = {}
  if options.macs is not None:
    budgets['macs'] = train.Budget(lambda facts: cost.macs(profile, facts), options.macs)
    channels = graph.channels(fn, params, setting.spec())
    train.check_feasible(budgets, train.smallest(budgets, channels, {}, gated=False))
  return Plan(make, space, chain(*rules), budgets, profile)


def search_supernet(options: Options, setting: Setting, made: Plan) -> Supernet:
  """Weights and decisions, to the end; what is observed goes into the metrics file."""
  net = made.make(setting.axis_name)
  params, stats = initial(made.make(None), setting, 'supernet')
  phase = Phase('search', options.steps, options.rate, options.rate, options.decision_rate, options.bilevel)
  probabilities = jax.jit(lambda slots: _probabilities(made, slots))
  sharpness = jax.jit(lambda slots, stats: _sharpness(setting, made, slots, stats))

  def observe(state):
    value = {'eigenvalue': float(sharpness(state.slots, state.model_state))} if options.weighting == 'softmax' else {}
    return value | {'probabilities': {path: p.tolist() for path, p in probabilities(state.slots).items()}}

  state = run_phase(setting, phase, flax_forward(net), made.reparam, made.reparam.init(setting.key('slots'), params),
                    stats, budgets=made.budgets, observe=observe)
  p = probabilities(state.slots)
  return Supernet(state, p, reestimated(setting, made.make(None), _weights(made, state.slots, p), state.model_state))


def observed(folder: pathlib.Path) -> dict[str, list]:
  """What the search's metrics file holds: steps, probabilities by path, eigenvalues; and accuracies at their steps."""
  lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  lines = [line for line in lines if line['name'] == 'search']
  seen = [line for line in lines if 'probabilities' in line]
  told = [line for line in lines if 'accuracy' in line]
  return {'step': [line['step'] for line in seen], 'probabilities': [line['probabilities'] for line in seen],
          'eigenvalue': [line['eigenvalue'] for line in seen if 'eigenvalue' in line],
          'accuracy_step': [line['step'] for line in told],
          'accuracy': [line.get('held_out/accuracy', line['accuracy']) for line in told]}


def selected(options: Options, setting: Setting, made: Plan, found: Supernet,
             history: Mapping[str, list]) -> encoding.Architecture:
  """By the probabilities at the end, or where the eigenvalue had begun to grow, within the budget (`train.affordable`;
  DARTS' cells drop edges instead); or by what the supernet would lose."""
  if options.select == 'perturbation':
    return _perturbed(options, setting, made, found)
  p = found.probabilities
  if options.select == 'eigenvalue':
    values = history['eigenvalue']
    stops = [at for i in range(len(values)) if (at := search.should_stop(values[:i + 1])) is not None]
    p = history['probabilities'][stops[0]] if stops else p
  if isinstance(net := made.make(None), search.DARTSSpace):
    found = search.derive_architecture(p, net.operators, max_skips=options.max_skips)
    return {path: found[path] for path in made.space}
  largest = encoding.one_hot(made.space, np.array([np.argmax(p[path]) for path in made.space]))
  facts = lambda choices: {path: Fact(choice=jnp.asarray(choices[path])) for path in made.space}
  found = train.affordable(facts(largest), facts(p), made.budgets, {})
  return encoding.decode(made.space, np.array([np.argmax(found[path].choice) for path in made.space]))


def retrained(options: Options, setting: Setting, made: Plan, architecture: encoding.Architecture, name: str) -> float:
  """Test accuracy of an architecture that is trained from the start, on all that is not the test part."""
  whole = setting.dataset.train
  if options.bilevel is not None:
    whole = data.joined(whole.name, whole, setting.dataset.validation)
  setting = setting._replace(dataset=setting.dataset._replace(train=whole))
  final = lambda net: search.Derived(net.clone(affine=True) if hasattr(net, 'affine') else net, architecture)
  net, plain = final(_without_auxiliary(made.make(setting.axis_name))), final(_plain(made))
  params, stats = initial(plain, setting, name)
  state = run_phase(setting, Phase(name, options.retrain_steps, options.rate), flax_forward(net), IDENTITY,
                    IDENTITY.init(setting.key('init'), params), stats)
  return accuracy(setting, lambda x: plain.apply({'params': state.slots.theta, **state.model_state}, x, False))


def _space(options, setting):
  """`make(axis_name)` of the options' space."""
  source = setting.dataset.train
  cls = SPACES.get(options.space) or user_class('search', '--space', options.space, CALLED)
  fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
  given = {name: value for name in ('features', 'cells', 'auxiliary_skip') if (value := getattr(options, name))}
  if unknown := sorted(set(given) - fields):
    raise EffjaxError(f'search: --{unknown[0].replace("_", "-")} does nothing for --space {options.space}, which has '
                      f'no {unknown[0]!r}: leave it out')
  if options.space == 'mbconv' and min(source.shape[:2]) < 24:
    given['stem_strides'] = 1
  if 'affine' in fields and options.space in SPACES:
    given['affine'] = False  # or an operator hides its weight in BatchNorm's scale
  return lambda axis: cls(source.num_classes, **given, **({'axis_name': axis} if axis else {}))


def _check(options, net, space):
  darts = isinstance(net, search.DARTSSpace)
  if options.max_skips is not None and (not darts or options.select == 'perturbation'):
    raise EffjaxError(f'search: --max-skips is of the cells of --space darts that the probabilities select, got '
                      f'--space {options.space} and --select {options.select}: leave it out')
  if options.select == 'perturbation' and darts:
    raise EffjaxError('search: --select perturbation decides on operators, and a state of --space darts keeps two '
                      'edges: use largest or eigenvalue')
  if options.select == 'eigenvalue' and options.weighting != 'softmax':
    raise EffjaxError(f'search: --select eigenvalue wants --weighting softmax, got {options.weighting}: a draw has no '
                      'eigenvalue of its own')


def _without_auxiliary(net):
  return net.clone(auxiliary_skip=False) if getattr(net, 'auxiliary_skip', False) else net


def _plain(made):
  return _without_auxiliary(made.make(None))


def _fixed(setting, net):
  """(fn(params, x) in inference mode, params) of shapes, its statistics zeros."""
  shapes = jax.eval_shape(lambda key: net.init(key, jnp.zeros(setting.spec().shape), False), jax.random.key(0))
  params, stats = parts(shapes)
  stats = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), stats)
  return lambda params, x: net.apply({'params': params, **stats}, x, False), params


def _probabilities(made, slots):
  return {path: fact.choice for path, fact in made.reparam.facts(slots, False).items() if path in made.space}


def _weights(made, slots, choices):
  """As deployed, but for the choices."""
  return encoding.put(made.reparam.apply(slots.theta, slots.phi, slots.state, None), choices)


def _held_out(setting):
  source = setting.dataset.validation
  batch = source.fetch(np.arange(min(source.size, SEEN)))
  return data.normalize(jnp.asarray(batch['image'])), jnp.asarray(batch['label'])


def _sharpness(setting, made, slots, stats):
  """The dominant eigenvalue of the held-out loss by the logits, BatchNorm by the batch."""
  (x, labels), net = _held_out(setting), made.make(None)

  def loss(phi):
    now = slots._replace(phi=phi)
    weights = _weights(made, now, _probabilities(made, now))
    logits = net.apply({'params': weights, **stats}, x, True, mutable=list(stats))[0]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
  return search.dominant_eigenvalue(setting.key('eigenvalue'), loss, slots.phi, tolerance=.02, max_steps=30).value


def _perturbed(options, setting, made, found):
  (x, labels), net = _held_out(setting), made.make(None)

  @jax.jit
  def evaluate(state, choices):
    weights = _weights(made, state.slots, choices)
    return jnp.mean(net.apply({'params': weights, **found.stats}, x, False).argmax(-1) == labels)

  order = random.Random(options.seed).sample(list(made.space), len(made.space))
  chosen = search.perturbation(evaluate, found.probabilities, order, state=found.state)
  return encoding.decode(made.space, np.array([chosen.operators[path] for path in made.space]))


def _soft(setting, made, found):
  weights = _weights(made, found.state.slots, found.probabilities)
  return accuracy(setting, lambda x: made.make(None).apply({'params': weights, **found.stats}, x, False))


def _inherited(setting, made, found, network):
  weights = made.reparam.apply(found.state.slots.theta, found.state.slots.phi, found.state.slots.state, None)
  x = jnp.zeros(setting.spec().shape)
  params, stats = parts(network.inherited({'params': weights, **found.state.model_state}, x, False))
  stats = reestimated(setting, network, params, stats)
  return accuracy(setting, lambda x: network.apply({'params': params, **stats}, x, False))


def _edges(options):
  """From which state to which, of spaces that are cells."""
  if options.space == 'nb201':
    return dict(zip(search.nas_bench_201.SPACE, search.nas_bench_201.EDGES))
  return search.edge_names() if options.space == 'darts' else {}
