"""The protocol itself; the laws of every rule are in laws_test.py."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.graph.channels import channels
from effjax.reparam import Fact, Rule, Slots, at, chain, mark_decisions, over

KEY = jax.random.key(0)
PARAMS = {'a': jnp.arange(3.), 'b': {'w': jnp.ones((2, 2)), 'v': jnp.zeros(2)}}


def scaled(name='s', by=2.):
  """y = s w, counting updates."""
  return Rule(
      lambda key, w: Slots(w, {name: jnp.asarray(by, w.dtype)}, {'count': jnp.zeros((), jnp.int32)}),
      lambda theta, phi, state, key: theta * phi[name], lambda slots, hard: Fact(bits=slots.phi[name]),
      lambda slots, gradient: {'count': slots.state['count'] + jnp.sum(gradient).astype(jnp.int32)})


def noise():
  return Rule(lambda key, w: Slots(w, {}, {}),
              lambda w, phi, state, key: w if key is None else jax.random.normal(key, w.shape),
              lambda slots, hard: Fact())


def replaced():
  """The leaf is phi alone."""
  return Rule(lambda key, w: Slots(None, {'logits': w}, {}), lambda theta, phi, state, key: phi['logits'],
              lambda slots, hard: Fact(choice=slots.phi['logits']), decisions=frozenset({'logits'}))


def test_at_touches_only_what_matches():
  r = at('b/.*', scaled())
  slots = r.init(KEY, PARAMS)
  weights = r.apply(*slots, None)
  chex.assert_trees_all_equal(weights, {'a': PARAMS['a'], 'b': {'w': 2. * jnp.ones((2, 2)), 'v': jnp.zeros(2)}})
  assert list(slots.phi) == ['b/v', 'b/w']
  assert list(r.facts(slots, True)) == ['b/v', 'b/w']
  state = r.update(slots, jax.tree.map(jnp.ones_like, PARAMS))
  assert {path: int(s['count']) for path, s in state.items()} == {'b/v': 2, 'b/w': 4}


def test_every_leaf_has_a_key_of_its_own():
  r = at('.*', noise())
  weights = r.apply(*r.init(KEY, {'x': jnp.ones(4), 'y': jnp.ones(4)}), KEY)
  assert not np.allclose(weights['x'], weights['y'])
  more = r.apply(*r.init(KEY, {'x': jnp.ones(4), 'z': jnp.ones(4)}), KEY)
  np.testing.assert_array_equal(more['x'], weights['x'])


def test_stacked_layers_have_keys_of_their_own():
  r = at('x', noise(), stacked=True)
  x = r.apply(*r.init(KEY, {'x': jnp.ones((2, 4))}), KEY)['x']
  assert not np.allclose(x[0], x[1])


def test_a_replaced_leaf_is_none_in_theta_and_trains_in_phi():
  r = at('a', replaced())
  slots = r.init(KEY, PARAMS)
  assert slots.theta['a'] is None
  chex.assert_trees_all_equal(r.apply(*slots, KEY), PARAMS)
  chex.assert_trees_all_equal(r.update(slots, PARAMS), {'a': {}})
  assert r.decisions(slots.phi) == {'a': {'logits': True}}


def test_chain_applies_in_order_and_merges_facts():
  choice = Fact(choice=jnp.ones(1), bits=jnp.ones(1))
  second = scaled('t', 5.)._replace(facts=lambda slots, hard: choice._replace(bits=None))
  r = chain(at('a', scaled('s', 3.)), at('a', second))
  slots = r.init(KEY, PARAMS)
  np.testing.assert_array_equal(r.apply(*slots, None)['a'], 15. * PARAMS['a'])
  fact = r.facts(slots, True)['a']
  assert float(fact.bits) == 3. and fact.choice is choice.choice


def test_the_parts_of_a_chain_have_keys_of_their_own():
  one, two = chain(at('a', noise())), chain(at('a', noise()), at('a', noise()))
  first, second = (r.apply(*r.init(KEY, PARAMS), KEY)['a'] for r in (one, two))
  assert not np.allclose(first, second)


def test_update_gives_every_part_the_gradient_of_the_weights():
  r = chain(at('a', scaled('s')), at('a', scaled('t')))
  slots = r.init(KEY, PARAMS)
  state = r.update(slots, jax.tree.map(lambda x: jnp.full_like(x, 2.), PARAMS))
  assert [int(s['a']['count']) for s in state] == [6, 6]


def test_a_chain_refuses_to_replace_what_was_made():
  with pytest.raises(EffjaxError, match="chain: a part replaces leaf 'a', which an earlier part made already: put the "
                                        'part that replaces it first'):
    chain(at('a', scaled()), at('a', replaced())).init(KEY, PARAMS)


def test_a_later_part_may_work_on_a_replaced_leaf():
  r = chain(at('a', replaced()), at('a', scaled()))
  slots = r.init(KEY, PARAMS)
  assert slots.theta['a'] is None
  np.testing.assert_array_equal(r.apply(*slots, None)['a'], 2. * PARAMS['a'])
  assert r.facts(slots, True)['a'].choice is slots.phi[0]['a']['logits']


def test_decisions_are_marked():
  rule = replaced()
  assert mark_decisions(rule, {'logits': {'deep': 1.}, 'scale': 2.}) == {'logits': {'deep': True}, 'scale': False}
  assert mark_decisions(scaled(), {'s': 1.}) == {'s': False}


def test_over_gates_each_channel_once():
  fn = lambda p, x: jax.nn.relu(x @ p['a']) @ p['b']
  params = {'a': jax.random.normal(KEY, (3, 4)), 'b': jax.random.normal(KEY, (4, 2))}
  r = over(channels(fn, params, jnp.ones((1, 3))), replaced())
  slots = r.init(KEY, params)._replace(phi={'logits': jnp.array([1., 0., 0.5, 1.])})
  weights = r.apply(*slots, None)
  np.testing.assert_array_equal(weights['a'], params['a'])
  np.testing.assert_allclose(weights['b'], params['b'] * jnp.array([[1.], [0.], [0.5], [1.]]))
  assert list(r.facts(slots, True)) == ['channels']
  assert r.decisions(slots.phi) == {'logits': True}


def test_over_refuses_rules_that_keep_their_array_and_networks_without_channels():
  fn = lambda p, x: jax.nn.relu(x @ p['a']) @ p['b']
  params = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}
  with pytest.raises(EffjaxError, match='over: wants a rule whose theta is None'):
    over(channels(fn, params, jnp.ones((1, 3))), scaled()).init(KEY, params)
  with pytest.raises(EffjaxError, match='over: no prunable channels'):
    over(channels(lambda p, x: x @ p, jnp.ones((3, 2)), jnp.ones((1, 3))), replaced())
