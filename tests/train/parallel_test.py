"""The same seed makes the same decisions on 1, 2 and 4 devices, by mesh and by pmap; every way is one program."""
import os

os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=4')

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import relax, reparam
from effjax.errors import EffjaxError
from effjax.reparam import Fact, Rule, Slots
from effjax.train import Budget, compile_step, cross_entropy, init_state, make_step, objective, optimizer

KEY = jax.random.key(0)


class Net(nn.Module):
  """Two candidate convolutions mixed by a parameter, BatchNorm, global mean, dense."""
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x):
    p = self.param('p', nn.initializers.constant(.5), (2,))
    x = p[0] * nn.Conv(4, (3, 3))(x) + p[1] * nn.Conv(4, (1, 1))(x)
    x = nn.relu(nn.BatchNorm(use_running_average=False, momentum=.9, axis_name=self.axis_name)(x))
    return nn.Dense(3)(x.mean((1, 2)))


def gumbel():
  def apply(theta, phi, state, key):
    return relax.softmax(phi['logits']) if key is None else relax.gumbel_softmax(key, phi['logits'], 1.)

  return Rule(init=lambda key, w: Slots(None, {'logits': jnp.zeros_like(w)}, None), apply=apply,
              facts=lambda slots, hard: Fact(choice=relax.softmax(slots.phi['logits'])),
              decisions=frozenset({'logits'}))


def batches(i, n=16):
  keys = jax.random.split(jax.random.fold_in(KEY, i))
  label = jax.random.randint(keys[0], (n,), 0, 3)
  image = jax.random.normal(keys[1], (n, 6, 6, 2)) + label.astype(jnp.float32)[:, None, None, None]
  return {'id': jnp.arange(n, dtype=jnp.int32), 'image': image, 'label': label}


def setup(axis_name=None, **bilevel):
  net = Net(axis_name)

  def forward(weights, model_state, batch, key):
    logits, state = net.apply({'params': weights, 'batch_stats': model_state}, batch['image'], mutable='batch_stats')
    return {'logits': logits}, state['batch_stats']

  variables = Net().init(KEY, batches(0)['image'])
  r = reparam.at('p', gumbel())
  slots = r.init(KEY, variables['params'])
  noise = lambda keys, images: images + jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
  budgets = {'ops': Budget(lambda facts: facts['p'].choice[0] * jnp.float32(9.) + facts['p'].choice[1], 4.)}
  task = objective(forward, [cross_entropy(.1)], budgets=budgets, augment=noise)
  sgd = optax.sgd(.2, momentum=.9)
  opt = optimizer(r, slots, weights=sgd, decisions=sgd)
  state = init_state(task, r, opt, slots, variables['batch_stats'], batches(0), KEY, axis_name=axis_name)
  return make_step(task, r, opt, axis_name=axis_name, **bilevel), state


def train(how, devices, steps=20, **bilevel):
  chex.clear_trace_counter()
  step, state = setup('devices' if how == 'pmap' else None, **bilevel)
  run = compile_step(chex.assert_max_traces(step, n=1), how, jax.devices()[:devices])
  for i in range(steps):
    state, metrics = run(state, batches(i), *([batches(1000 + i)] if bilevel else []))
  key = jax.random.key_data(state.key)
  return jax.device_get((state._replace(key=key), metrics))


@pytest.fixture(scope='module')
def reference():
  return train('jit', 1)


def assert_same(got, wanted):
  """float32 sums over a batch come in another order: about 1e-7 each, 20 steps of momentum let it grow to 1e-5."""
  chosen = lambda run: int(np.argmax(run[0].slots.phi['p']['logits']))
  assert chosen(got) == chosen(wanted)
  chex.assert_trees_all_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('how', 'devices'), [('mesh', 1), ('mesh', 2), ('mesh', 4), ('pmap', 2), ('pmap', 4)])
def test_devices_agree(how, devices, reference):
  assert_same(train(how, devices), reference)


@pytest.mark.parametrize('how', ['mesh', 'pmap'])
def test_devices_agree_on_the_second_order_step(how):
  options = {'bilevel': 'second', 'inner_rate': .1}
  assert_same(train(how, 4, steps=5, **options), train('jit', 1, steps=5, **options))


def test_the_run_learns_and_keeps_its_budget_in_view(reference):
  state, metrics = reference
  assert float(metrics['loss']) < 1.5 and float(metrics['accuracy']) > .5
  assert np.ptp(state.slots.phi['p']['logits']) > 0.


@pytest.mark.parametrize('how', ['mesh', 'pmap'])
def test_a_batch_must_divide(how):
  step, state = setup('devices' if how == 'pmap' else None)
  with pytest.raises(EffjaxError, match='a batch of 14 examples does not divide over 4 devices: use 12 or 16 examples'):
    compile_step(step, how)(state, batches(0, 14))


def test_mistakes():
  step, _ = setup()
  with pytest.raises(EffjaxError, match="how must be 'jit', 'mesh' or 'pmap', got 'tpu'"):
    compile_step(step, 'tpu')
  with pytest.raises(EffjaxError, match=r"'pmap' wants a step from make_step\(.*\), got axis_name=None"):
    compile_step(step, 'pmap')
  with pytest.raises(EffjaxError, match="'jit' runs on one device, got 4"):
    compile_step(step, 'jit', jax.devices())
