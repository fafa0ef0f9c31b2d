"""The phases that training runs share: what a forward function is, one call of `fit`, test accuracy."""
import importlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import data, distill, graph, quantize, train
from effjax.errors import EffjaxError
from effjax.layers.fast import fast
from effjax.reparam import Reparam, Slots, chain
from effjax.term import Term
from effjax.train.objective import Forward
from effjax.train.step import SECOND_ORDER
from effjax.tree import PyTree

AXIS = 'devices'
IDENTITY = chain()


class Setting(NamedTuple):
  """What is the same for all phases of one run.

  folder: of the run: checkpoints, metrics. dataset: as loaded. augment: `(keys, images) -> images`.
  how, devices: as for `train.compile_step`.
  """
  folder: pathlib.Path
  dataset: data.Dataset
  augment: Callable
  batch_size: int
  seed: int
  how: str
  devices: Sequence[jax.Device]
  every_steps: int

  @property
  def axis_name(self) -> str | None:
    """The mapped axis of the devices, under pmap."""
    return AXIS if self.how == 'pmap' else None

  def example(self, n: int = 1) -> jax.Array:
    """The first n training images as the network sees them."""
    return data.normalize(jnp.asarray(self.dataset.train.fetch(np.arange(n))['image']))

  def spec(self) -> jax.ShapeDtypeStruct:
    """The shape of one image."""
    return jax.ShapeDtypeStruct((1, *self.dataset.train.shape), jnp.float32)

  def key(self, phase: str) -> jax.Array:
    """A key of the phase's own."""
    return jax.random.fold_in(jax.random.key(self.seed), sum(map(ord, phase)))


def setting_of(command: str, options: Any, folder: pathlib.Path) -> Setting:
  """The setting that the options of a command ask for; without bilevel the validation part trains too.

  Raises:
    EffjaxError: more devices than there are.
  """
  dataset = data.load(options.data, options.data_dir)
  devices = jax.devices()
  if options.devices > len(devices):
    raise EffjaxError(f'{command}: --devices {options.devices}, this machine has {len(devices)}: on CPU set '
                      f'XLA_FLAGS=--xla_force_host_platform_device_count={options.devices}')
  if options.bilevel is None:  # nothing is decided on held-out data: all of it trains
    train_all = data.joined(dataset.train.name, dataset.train, dataset.validation)
    dataset = dataset._replace(train=train_all)
  how = data.standard(options.data, dataset.train.shape)
  return Setting(folder, dataset, lambda keys, image: data.augment(keys, image, **how), options.batch_size,
                 options.seed, options.parallel, devices[:options.devices], options.every_steps)


class Phase(NamedTuple):
  """One training run: its name (folder and lines of the metrics file), length and peak learning rates.

  bilevel: as for `train.make_step`; its held-out batches come from the validation part.
  """
  name: str
  steps: int
  weights: float
  parameters: float = 0.
  decisions: float = 0.
  bilevel: str | None = None


def run_phase(setting: Setting, phase: Phase, forward: Forward, reparam: Reparam, slots: Slots,
              model_state: PyTree, *, terms: Sequence[Term] = (), teacher: Callable | None = None,
              budgets: Mapping[str, train.Budget] | None = None, penalties: Mapping[str, Callable] | None = None,
              observe: Callable | None = None) -> train.TrainState:
  """Trains to the end, or goes on from the newest checkpoint of this phase. Budgets tighten over its first half,
  and a multiplier starts again from 0 once its limit is met."""
  controller = train.augmented_lagrangian(tighten_steps=phase.steps // 2, restarts=True)
  objective = train.objective(forward, [train.cross_entropy(), *terms], budgets=budgets, penalties=penalties,
                              teacher=teacher, augment=setting.augment, controller=controller)
  optimizer = train.optimizer(reparam, slots, weights=by_path(phase), parameters=cosine(phase.parameters, phase.steps),
                              decisions=optax.adam(phase.decisions, b1=.5, b2=.99))
  second = dict(inner_rate=phase.weights) if phase.bilevel in SECOND_ORDER else {}
  step = train.make_step(objective, reparam, optimizer, axis_name=setting.axis_name, bilevel=phase.bilevel, **second)
  batch = batches(setting, phase.bilevel)
  first = batch(0) if phase.bilevel is None else batch(0)[0]
  shard = jax.tree.map(lambda x: x[:max(1, len(x) // len(setting.devices))], first)
  state = train.init_state(objective, reparam, optimizer, slots, model_state, shard, setting.key(phase.name),
                           axis_name=setting.axis_name)
  return train.fit(train.compile_step(step, setting.how, setting.devices), state, batch, steps=phase.steps,
                   directory=setting.folder / 'checkpoints' / phase.name, every_steps=setting.every_steps,
                   metrics_file=setting.folder / 'metrics.jsonl', name=phase.name, observe=observe)


def batches(setting: Setting, bilevel: str | None) -> Callable[[int], Any]:
  """Training batches by step; under bilevel each with a held-out one of the validation part."""
  training = data.batches(setting.dataset.train, setting.batch_size, setting.seed)
  if bilevel is None:
    return training
  held_out = data.batches(setting.dataset.validation, setting.batch_size, setting.seed + 1)
  return lambda step: (training(step), held_out(step))


def initial(net: Any, setting: Setting, name: str) -> tuple[PyTree, PyTree]:
  """Parameters and statistics. Runs once, so on CPU compiling it well would take longer than it saves."""
  quickly = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else None
  init = jax.jit(lambda key: net.lazy_init(key, setting.spec(), False), compiler_options=quickly)
  return parts(init(setting.key(name)))


def parts(variables: PyTree) -> tuple[PyTree, PyTree]:
  """Parameters, and all other collections."""
  return variables['params'], {name: part for name, part in variables.items() if name != 'params'}


def reestimated(setting: Setting, net: Any, weights: PyTree, stats: PyTree) -> PyTree:
  """BatchNorm's statistics for weights that are fixed, of ten training batches."""
  if not stats:
    return stats
  batch = data.batches(setting.dataset.train, setting.batch_size, setting.seed)
  return train.reestimate(flax_forward(net), weights, stats, [batch(i) for i in range(10)])


def user_class(command: str, option: str, name: str, called: str) -> Callable:
  """What `package.module:Class` names.

  Raises:
    EffjaxError: it cannot be imported; `called` says what is wanted.
  """
  module, _, attribute = name.partition(':')
  try:
    return getattr(importlib.import_module(module), attribute)
  except (ImportError, AttributeError, ValueError) as error:
    raise EffjaxError(f'{command}: {option} {name!r} cannot be imported ({error}): {called}') from error


def cosine(rate: float, steps: int) -> optax.GradientTransformation:
  """Adam whose rate falls to 0 along a cosine."""
  return optax.adam(optax.cosine_decay_schedule(rate, steps))


def by_path(phase: Phase) -> optax.GradientTransformation:
  """Weights at the phase's rate; the ranges of activations, which quantization-aware training keeps beside them, as
  slowly as the scales of weights: they are of size 1/100, and Adam's steps are of the size of its rate."""
  def labels(params):
    is_range = lambda path: any(getattr(k, 'key', None) == quantize.RANGES for k in path)
    return jax.tree_util.tree_map_with_path(lambda path, _: 'range' if is_range(path) else 'weight', params)
  return optax.partition({'weight': cosine(phase.weights, phase.steps),
                          'range': cosine(phase.parameters or phase.weights, phase.steps)}, labels)


def flax_forward(net: Any, hints: Sequence[str] = ()) -> Forward:
  """`(weights, batch_stats, batch, key) -> (outputs, batch_stats)` of a Linen module called as `net(x, train)`."""
  def apply(params, stats, x):
    return net.apply({'params': params, **stats}, x, True, mutable=list(stats))

  def forward(weights, stats, batch, key):
    (logits, stats), found = fast(graph.collect(apply, hints))(weights, stats, data.normalize(batch['image']))
    return {'logits': logits, 'features': found}, stats
  return forward


def fixed_forward(fn: Callable, hints: Sequence[str] = ()) -> Forward:
  """The same of a function `fn(params, x)` with nothing to remember."""
  def forward(weights, state, batch, key):
    logits, found = fast(graph.collect(fn, hints))(weights, data.normalize(batch['image']))
    return {'logits': logits, 'features': found}, state
  return forward


def teacher(fn: Callable, params: PyTree, hints: Sequence[str] = ()) -> Callable:
  """`batch -> outputs` of a trained network."""
  forward = fixed_forward(fn, hints)
  return lambda batch: forward(params, None, batch, None)[0]


def accuracy(setting: Setting, predict: Callable[[jax.Array], jax.Array]) -> float:
  """Share of the test part that is classified right, in [0, 1]."""
  right = jax.jit(lambda batch: jnp.sum(
      (jnp.argmax(predict(data.normalize(batch['image'])), -1) == batch['label']) & batch['mask']))
  found = [right(batch) for batch in data.evaluation_batches(setting.dataset.test, setting.batch_size)]
  return float(sum(map(int, found))) / setting.dataset.test.size


def check_logits(fn: Callable, params: PyTree, setting: Setting) -> None:
  """The network must give one number per class.

  Raises:
    EffjaxError: it gives something else.
  """
  source = setting.dataset.train
  out = jax.eval_shape(fn, params, jax.ShapeDtypeStruct((1, *source.shape), jnp.float32))
  if getattr(out, 'shape', None) != (1, source.num_classes):
    raise EffjaxError(f'model: for one image of {source.name!r} it gives {jax.tree.map(jnp.shape, out)}, wanted logits '
                      f'of shape (1, {source.num_classes}): end it in a dense layer of {source.num_classes} features')


def distillation(hints: Mapping[str, str], weight: float) -> list[Term]:
  """Hinton's logits, and FitNets' hints where the networks share a tap."""
  terms = [distill.logits(temperature=4., weight=weight)]
  return terms + ([distill.features(dict(hints), weight=.1 * weight)] if hints else [])
