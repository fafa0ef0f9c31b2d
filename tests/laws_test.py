"""The laws of the protocol, over every rule and every reparameterisation: one table."""
import collections
import functools
import inspect
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from effjax import quantize, search, sparsify, tree
from effjax.errors import EffjaxError
from effjax.graph.channels import channels
from effjax.reparam import Reparam, Rule, Slots, at, chain, over
from effjax.train import checkpoint

KEY = jax.random.key(7)
RULES = {
    'lsq': quantize.lsq(8), 'lsq_2_per_tensor': quantize.lsq(2, per_channel=False),
    'mixed_bits': quantize.mixed_bits((2, 4, 8), temperature=lambda step: 1. / (1. + step.astype(jnp.float32))),
    'uniform': quantize.uniform(4), 'uniform_affine': quantize.uniform(4, symmetric=False, block=16),
    'admm': quantize.admm((0, 1, 2)), 'admm_binary': quantize.admm((1,), every_steps=2, per_channel=True),
    'ternary': quantize.ternary(), 'ternary_factor': quantize.ternary(factor=.7, per_channel=False),
    'trained_ternary': quantize.trained_ternary(), 'xnor': quantize.xnor(),
    'binary_connect': quantize.binary_connect(), 'binary_drawn': quantize.binary_connect(stochastic=True),
    'fixed_point': quantize.fixed_point(4, 4), 'fixed_drawn': quantize.fixed_point(4, 8, stochastic=True),
    'blockwise': quantize.blockwise(block=16), 'blockwise_dynamic': quantize.blockwise(quantize.dynamic_levels()),
    'shared': quantize.shared(4), 'shared_dense': quantize.shared(2, zero=False),
    'dorefa': quantize.dorefa(3), 'dorefa_1': quantize.dorefa(1),
    'apot': quantize.apot(4),
    'bayesian_bits': quantize.bayesian_bits(), 'bayesian_kept': quantize.bayesian_bits(prune=None, per_channel=False),
    'fractional_bits': quantize.fractional_bits(initial=4.75), 'channel_bits': quantize.channel_bits(),
    'clip_q': quantize.clip_q(),
    'adaround': quantize.adaround(4),
    'hard_concrete': sparsify.hard_concrete(), 'softmax': search.softmax(),
    'gumbel': search.gumbel(temperature=lambda step: 2. / (1. + step.astype(jnp.float32))),
    'straight_through_gumbel': search.straight_through_gumbel(
        temperature=lambda step: 2. / (1. + step.astype(jnp.float32))),
    'binary_gates': search.binary_gates(), 'binary_gates_two': search.binary_gates(paths=2),
    'sigmoid': search.sigmoid(), 'dirichlet': search.dirichlet(), 'mirror_softmax': search.mirror_softmax(),
    'uniform_path': search.uniform_path(),
    'auxiliary_skip': search.auxiliary_skip(lambda step: 1. / (1. + step.astype(jnp.float32))),
    'path_dropout': search.path_dropout(rate=lambda step: .5 / (1. + step.astype(jnp.float32)))}
VARIANTS = {'uniform_affine', 'admm_binary', 'ternary_factor', 'fixed_drawn', 'blockwise_dynamic', 'shared_dense',
            'dorefa_1', 'bayesian_kept', 'straight_through_gumbel', 'binary_gates_two', 'sigmoid', 'mirror_softmax',
            'dirichlet', 'path_dropout'}  # made like another in the table; slow tests
CHOICES = {'softmax', 'gumbel', 'straight_through_gumbel', 'binary_gates', 'binary_gates_two', 'sigmoid', 'dirichlet',
           'mirror_softmax', 'uniform_path', 'path_dropout'}
VECTORS = {'hard_concrete', *CHOICES}  # rules on a vector; the others are on kernels, one on a scalar
kind = lambda name: 'scalar' if name == 'auxiliary_skip' else 'vector' if name in VECTORS else 'kernel'


class Case(NamedTuple):
  reparam: Reparam
  params: dict


def params(kind='kernel', dtype=jnp.float32, layers=()):
  draw = lambda i, *shape: jax.random.normal(jax.random.fold_in(KEY, i), (*layers, *shape), dtype)
  return {'w': draw(0, *{'scalar': (), 'vector': (64,), 'kernel': (3, 3, 4, 8)}[kind]), 'b': draw(1, 8)}


def network(weights, x):
  return jax.nn.relu(x @ weights['a']) @ weights['w']


@functools.cache
def case(name):
  if name in RULES:
    return Case(at('w', RULES[name]), params(kind(name)))
  weights = {'a': jax.random.normal(KEY, (4, 12)), 'w': jax.random.normal(KEY, (12, 8))}
  gates = over(channels(network, weights, jnp.ones((2, 4))), sparsify.hard_concrete())
  bits = at('.*', quantize.mixed_bits((4, 8)))
  return Case({'over': gates, 'chain': chain(bits, gates), 'identity': chain()}[name], weights)


CASES = [*RULES, 'over', 'chain', 'identity']
marked = lambda names: [pytest.param(n, marks=pytest.mark.slow) if n in VARIANTS else n for n in names]
each_case = pytest.mark.parametrize('name', marked(CASES))
each_rule = pytest.mark.parametrize('name', marked(RULES))


def loss(weights):
  probe = lambda i, w: jnp.sum(jnp.sin(3. * w.astype(jnp.float32)) * jax.random.normal(jax.random.key(i), w.shape))
  return sum(probe(i, w) for i, w in enumerate(jax.tree.leaves(weights)))


@functools.cache
def start(name):
  reparam, weights = case(name)
  return reparam, weights, reparam.init(KEY, weights)


TRACES = collections.Counter()


@functools.partial(jax.jit, static_argnums=0)
def descend(reparam, slots, key):
  """A step, and the gradients of all that trains; counts how often it is traced."""
  TRACES[reparam] += 1

  def objective(theta, phi):
    weights = reparam.apply(theta, phi, slots.state, key)
    return loss(weights), weights

  (_, weights), grads = jax.value_and_grad(objective, (0, 1), has_aux=True)(slots.theta, slots.phi)
  moved = jax.tree.map(lambda x, g: x - 0.01 * g, (slots.theta, slots.phi), grads)
  return Slots(*moved, reparam.update(slots, jax.grad(loss)(weights))), grads


def step(reparam, slots, key):
  """Gradient descent on everything that trains, and the state's update."""
  return descend(reparam, slots, key)[0]


@functools.partial(jax.jit, static_argnums=0)
def applied(reparam, slots, key):
  """What is deployed, and what trains: compiled once for all laws."""
  return reparam.apply(*slots, None), reparam.apply(*slots, key)


def assert_close(got, wanted):
  """Deployed weights are equal to the last bit; those that train nearly."""
  chex.assert_trees_all_equal(got[0], wanted[0])
  chex.assert_trees_all_close(got[1], wanted[1], atol=1e-6)


@each_case
@pytest.mark.parametrize('key', [None, KEY], ids=['deployed', 'training'])
def test_structure_and_dtype_are_kept(name, key):
  reparam, weights, slots = start(name)
  applied = jax.eval_shape(reparam.apply, *slots, key)
  chex.assert_trees_all_equal_structs(applied, weights)
  chex.assert_trees_all_equal_shapes_and_dtypes(applied, weights)


@each_rule
def test_bfloat16_is_kept(name):
  weights = params(kind(name), jnp.bfloat16)
  reparam = at('w', RULES[name])
  slots = jax.jit(reparam.init)(KEY, weights)
  for key in (None, KEY):
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(reparam.apply, *slots, key), weights)
  objective = lambda phi, key: loss(reparam.apply(slots.theta, phi, slots.state, key))
  gradients = jax.jit(lambda phi: [jax.grad(objective)(phi, key) for key in (None, KEY)])
  chex.assert_tree_all_finite(gradients(slots.phi))


@each_case
def test_every_leaf_receives_a_gradient(name):
  reparam, _, slots = start(name)
  for path, g in tree.leaves(descend(reparam, slots, KEY)[1]).items():
    assert bool(jnp.isfinite(g).all()) and bool(jnp.any(g != 0)), path


@each_case
def test_pure(name):
  reparam, weights, slots = start(name)
  before = jax.tree.map(lambda x: np.array(x), (weights, slots))
  chex.assert_trees_all_equal(reparam.init(KEY, weights), slots)
  chex.assert_trees_all_equal(reparam.apply(*slots, KEY), reparam.apply(*slots, KEY))
  step(reparam, slots, KEY)
  chex.assert_trees_all_equal(before, (weights, slots))


@each_case
def test_one_trace_for_many_steps(name):
  reparam, _, slots = start(name)
  for i in range(3):
    slots = step(reparam, slots, jax.random.fold_in(KEY, i))
  assert TRACES[reparam] == 1  # the other laws step with the same types, too
  assert not any(x.weak_type for x in jax.tree.leaves(slots))


@each_case
def test_jit_agrees(name):
  reparam, _, slots = start(name)
  assert_close(applied(reparam, slots, KEY), (reparam.apply(*slots, None), reparam.apply(*slots, KEY)))


@each_case
def test_vmap_agrees(name):
  reparam, _, slots = start(name)
  keys = jax.random.split(KEY, 3)
  mapped = jax.jit(jax.vmap(lambda key: reparam.apply(*slots, key)))(keys)
  for i in range(3):
    one = applied(reparam, slots, keys[i])[1]
    chex.assert_trees_all_close(jax.tree.map(lambda x, i=i: x[i], mapped), one, atol=1e-6)


@each_case
def test_scan_over_steps_agrees(name):
  reparam, _, slots = start(name)
  keys = jax.random.split(KEY, 3)
  scanned = jax.lax.scan(lambda carry, key: (step(reparam, carry, key), None), slots, keys)[0]
  for key in keys:
    slots = step(reparam, slots, key)
  chex.assert_trees_all_close(scanned, slots, atol=1e-5)


@each_rule
def test_stacked_is_the_rule_on_every_layer(name):
  rule, weights = RULES[name], params(kind(name), layers=(3,))
  reparam = at('w', rule, stacked=True)
  slots = jax.jit(reparam.init)(KEY, weights)
  keys = jax.random.split(tree.fold(KEY, 'w'), 3)
  look = lambda reparam: jax.jit(lambda slots, key: (reparam.apply(*slots, None), reparam.facts(slots, True),
                                                     reparam.apply(*slots, key)))
  stacked, init, alone = jax.tree.map(lambda tree: tree['w'], look(reparam)(slots, KEY),
                                      is_leaf=lambda x: isinstance(x, dict)), jax.jit(rule.init), look(rule)
  for i in range(3):
    deployed, facts, training = jax.tree.map(lambda x, i=i: x[i], stacked)
    found = alone(init(keys[i], weights['w'][i]), keys[i])
    chex.assert_trees_all_equal(found[:2], (deployed, facts))
    chex.assert_trees_all_close(found[2], training, atol=1e-6)
  assert reparam.update(slots, weights)['w'].keys() == slots.state['w'].keys()


@each_case
def test_sharded_jit_agrees_with_one_device(name):
  reparam, _, slots = start(name)
  mesh = Mesh(np.array(jax.devices()[:4]), ('d',))
  split = lambda x: NamedSharding(mesh, PartitionSpec(*('d' if n % 4 == 0 else None for n in x.shape[-1:])))
  last = lambda x: PartitionSpec(*[None] * (x.ndim - 1), *split(x).spec) if x.ndim else PartitionSpec()
  sharded = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, last(x))), slots)
  assert_close(*jax.device_get((applied(reparam, sharded, KEY), applied(reparam, slots, KEY))))
  moved = step(reparam, sharded, KEY)
  chex.assert_trees_all_close(jax.device_get(moved), jax.device_get(step(reparam, slots, KEY)), atol=1e-5)


@each_case
def test_pmap_agrees_with_one_device(name):
  reparam, _, slots = start(name)
  there = jax.pmap(lambda _: (reparam.apply(*slots, None), reparam.apply(*slots, KEY)))(jnp.arange(4))
  for i in range(4):
    assert_close(jax.tree.map(lambda x, i=i: np.asarray(x[i]), there), applied(reparam, slots, KEY))


@each_case
def test_slots_survive_a_checkpoint(name, tmp_path):
  reparam, _, slots = start(name)
  slots = step(reparam, slots, KEY)
  checkpoint.save(tmp_path, 1, slots)
  restored = checkpoint.restore(tmp_path, jax.tree.map(jnp.zeros_like, slots))
  chex.assert_trees_all_equal_structs(restored, slots)
  chex.assert_trees_all_equal(restored, slots)


@each_case
def test_what_is_deployed_is_exactly_what_the_facts_say(name):
  reparam, _, slots = start(name)
  slots = step(reparam, slots, KEY)
  weights = tree.leaves(reparam.apply(*slots, None))
  for path, fact in reparam.facts(slots, True).items():
    if fact.scale is not None:
      bits = float(fact.bits)
      assert bits.is_integer()
      if fact.levels is not None:
        levels = np.asarray(fact.levels)
        assert len(levels) <= 2**bits and (np.diff(levels) > 0).all()
        apart = np.abs((np.asarray(weights[path]) / np.asarray(fact.scale))[..., None] - levels)
        exact = levels[apart.argmin(-1)] * np.asarray(fact.scale)
      else:
        offset = np.float32(0. if fact.offset is None else fact.offset)
        codes = np.float32(quantize.codes(weights[path], fact.scale)) + offset
        low, high = (0, 2**bits - 1) if fact.offset is not None else (1 - 2**(bits - 1), 2**(bits - 1) - 1)
        assert (codes >= min(low, -1)).all() and (codes <= max(high, 1)).all()
        exact = (codes - offset) * np.asarray(fact.scale)
      assert exact.tobytes() == np.asarray(weights[path]).tobytes() or name == 'chain'  # gates come after
    for part in (fact.keep, fact.choice):
      if part is not None:
        assert set(np.unique(part)) <= {0., 1.}
        assert path not in weights or np.array_equal(part, weights[path])


def test_open_gates_leave_codes_and_closed_ones_zeros():
  reparam, _, slots = start('chain')
  slots = slots._replace(phi=(slots.phi[0], {'log_alpha': jnp.where(jnp.arange(12) % 3 == 0, -5., 5.)}))
  weights, facts = reparam.apply(*slots, None), reparam.facts(slots, True)
  exact = quantize.codes(weights['w'], facts['w'].scale).astype(jnp.float32) * facts['w'].scale
  np.testing.assert_array_equal(weights['w'], exact)
  np.testing.assert_array_equal(weights['w'][::3], 0.)
  assert facts['channels'].keep.sum() == 8


@each_case
def test_soft_facts_are_differentiable_in_the_decisions(name):
  reparam, _, slots = start(name)
  decisions = tree.leaves(reparam.decisions(slots.phi))

  def cost(phi):
    facts = jax.tree.leaves(reparam.facts(slots._replace(phi=phi), False))
    weighed = lambda f: jnp.sum(f.ravel() * jnp.arange(1., 1. + f.size))  # unlike weights: a softmax sums to one
    return sum(map(weighed, facts), jnp.float32(0.))

  grads = tree.leaves(jax.jit(jax.grad(cost))(slots.phi))
  for path, decision in decisions.items():
    assert bool(jnp.isfinite(grads[path]).all())
    assert not decision or bool(jnp.any(grads[path] != 0)), path


def test_chain_is_associative_with_an_identity():
  a, b = at('w', quantize.lsq(8)), at('b', search.gumbel(temperature=1.))
  c = at('w', quantize.lsq(4))
  weights = params()
  forms = [chain(chain(b, a), c), chain(b, chain(a, c)), chain(b, a, c), chain(chain(), b, chain(chain(), a), c)]
  slots = [form.init(KEY, weights) for form in forms]
  for form, other in zip(forms[1:], slots[1:]):
    chex.assert_trees_all_equal(other, slots[0])
    chex.assert_trees_all_equal(form.apply(*other, KEY), forms[0].apply(*slots[0], KEY))
    chex.assert_trees_all_equal(form.facts(other, True), forms[0].facts(slots[0], True))
  chex.assert_trees_all_equal(chain().apply(*chain().init(KEY, weights), KEY), weights)


@each_rule
def test_a_pattern_that_matches_nothing_prints_the_nearest_paths(name):
  with pytest.raises(EffjaxError, match=r"'conv/kernell' matches none of 2 leaves: nearest are \['conv/kernel'"):
    at('conv/kernell', RULES[name]).init(KEY, {'conv': {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}})


@each_rule
def test_an_integer_leaf_is_refused(name):
  with pytest.raises(EffjaxError, match="leaf 'w' has dtype int32, wanted floating point: narrow the pattern 'w'"):
    at('w', RULES[name]).init(KEY, {'w': jnp.ones((2, 2), jnp.int32)})


def test_every_rule_is_in_the_table():
  offered = [getattr(folder, name) for folder in (quantize, sparsify, search) for name in folder.__all__]
  makes_rules = [f for f in offered if inspect.isfunction(f) and inspect.signature(f).return_annotation is Rule]
  assert {'lsq', 'mixed_bits', 'hard_concrete', 'softmax', 'gumbel'} <= {f.__name__ for f in makes_rules}
  assert {f.__name__ for f in makes_rules} <= set(RULES)
