"""Networks of one or two bits: trained with their rule against rounded after training, and on integers."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import data, quantize
from effjax.export.finalize import finalize
from effjax.reparam import at

KEY = jax.random.key(0)
RULES = {'binary_connect': quantize.binary_connect(), 'binary_drawn': quantize.binary_connect(stochastic=True),
         'xnor': quantize.xnor(), 'ternary': quantize.ternary(), 'ternary_factor': quantize.ternary(factor=.7),
         'trained_ternary': quantize.trained_ternary(), 'admm': quantize.admm((1,), every_steps=20)}
RATES = {'binary_drawn': 1.}  # draws teach slowly until weights come near to -1 and 1


def network(p, x):
  """Two hidden layers, each normalised over the batch as a BatchNorm would be."""
  norm = lambda x: (x - x.mean(0, keepdims=True)) * jax.lax.rsqrt(x.var(0, keepdims=True) + 1e-3)
  for name in ('a', 'b'):
    x = jnp.maximum(norm(x @ p[name]), 0.)
  return norm(x @ p['c'])


@functools.cache
def digits():
  parts = data.load('digits')
  batches = [part.fetch(np.arange(part.size)) for part in (parts.train, parts.validation)]
  return [(jnp.asarray(batch['image'].reshape(-1, 64) / np.float32(255)), jnp.asarray(batch['label'])) for batch in batches]


def start():
  draw = lambda i, *shape: jax.random.normal(jax.random.fold_in(KEY, i), shape) * .1
  return {'a': draw(0, 64, 64), 'b': draw(1, 64, 64), 'c': draw(2, 64, 10)}


@functools.cache
def accuracy(name):
  """On held-out images: of what is deployed after training with the rule; '' is float."""
  reparam = at('.*', RULES[name]) if name else None
  (x, y), (x_test, y_test) = digits()
  slots = reparam.init(KEY, start()) if name else start()
  tx = optax.chain(optax.sgd(RATES.get(name, .02), momentum=.9), quantize.clip_weights())

  def step(carry, key):
    slots, memory = carry
    theta, phi, state = slots if name else (slots, {}, {})

    def loss(theta, phi):
      weights = reparam.apply(theta, phi, state, key) if name else theta
      pull = quantize.admm_penalty(weights, state, .2) if name == 'admm' else 0.
      return optax.softmax_cross_entropy_with_integer_labels(network(weights, x), y).mean() * 4. + pull

    updates, memory = tx.update(jax.grad(loss, (0, 1))(theta, phi), memory, (theta, phi))
    theta, phi = optax.apply_updates((theta, phi), updates)
    new = slots._replace(theta=theta, phi=phi) if name else theta
    return (new._replace(state=reparam.update(new, theta)) if name else new, memory), None

  memory = tx.init((slots.theta, slots.phi) if name else (slots, {}))
  slots = jax.jit(lambda carry: jax.lax.scan(step, carry, jax.random.split(KEY, 300))[0])((slots, memory))[0]
  return float(jnp.mean(network(reparam.apply(*slots, None) if name else slots, x_test).argmax(1) == y_test)), slots


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in ('ternary', 'xnor'))) for name in RULES])
def test_training_with_it_beats_rounding_afterwards(name):
  (found, _), (reached, weights) = accuracy(name), accuracy('')
  reparam = at('.*', RULES[name])
  rounded = reparam.apply(*reparam.init(KEY, weights), None)
  (_, _), (x, y) = digits()
  after = float(jnp.mean(network(rounded, x).argmax(1) == y))
  assert found > .94 and found > after and reached > .97


@pytest.mark.parametrize('name', [name for name in RULES if name != 'trained_ternary'])
def test_they_run_on_integers(name):
  rule, w = RULES[name], jax.random.normal(KEY, (6, 4))
  slots = rule.init(KEY, w)
  fact = rule.facts(slots, True)
  node = finalize(lambda p, x: x @ p['w'], {'w': rule.apply(*slots, None)}, {'w': fact},
                  {'input': (.01, 0, 8), 'w': (.02, 0, 8)}, jnp.ones((1, 6))).nodes[0]
  codes = quantize.codes(rule.apply(*slots, None), fact.scale)
  assert set(np.unique(codes)) <= ({-1, 0, 1} if 'ternary' in name else {-1, 1})
  np.testing.assert_array_equal(node.codes, codes)
