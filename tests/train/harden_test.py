"""Hard choices within budgets: exact, minimal, and refused when out of reach."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import cost, graph, quantize, search, sparsify, train, tree
from effjax.errors import EffjaxError
from effjax.reparam import CHANNELS, Fact, at, chain, over
from effjax.train.affordable import affordable

LOG_ALPHA = jnp.asarray([-6., 4., 2., 3., -2., 5.])
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4)), jnp.float32)


def fn(p, x):
  c = p['choice']
  return (c[0] * jnp.tanh(x @ p['w1']) + c[1] * x) @ p['kernel'] @ p['out']


def searched():
  """Channels, reparam and slots after a search: operator 0, 8 bits for `kernel`, gates by LOG_ALPHA."""
  rng = np.random.default_rng(1)
  draw = lambda *s: jnp.asarray(rng.normal(size=s), jnp.float32)
  params = {'w1': draw(4, 4), 'choice': jnp.ones(2) / 2, 'kernel': draw(4, 6), 'out': draw(6, 3)}
  channels, profile = graph.channels(fn, params, X), graph.profile(fn, params, X[:1])
  reparam = chain(at('choice', search.softmax()), at('kernel', quantize.mixed_bits((4, 8))),
                  over(channels, sparsify.hard_concrete()))
  slots = reparam.init(jax.random.key(0), params)
  phi = tree.map_at(lambda path, _: {'0': jnp.array([2., 0.]), '1': jnp.array([0., 1.])}[path[0]], slots.phi,
                    ['0/choice/logits', '1/kernel/logits'])
  phi[2]['log_alpha'] = jnp.full(channels.size, 5.).at[channels.members['kernel'][1]].set(LOG_ALPHA)
  budgets = lambda limit: {'macs': train.Budget(lambda facts: cost.macs(profile, facts), limit)}
  return channels, reparam, slots._replace(phi=phi), budgets


def kept(channels, facts):
  return np.asarray(facts[CHANNELS].keep)[channels.members['kernel'][1]]


def test_decisions_are_the_most_probable():
  channels, reparam, slots, _ = searched()
  facts, costs, dropped = train.decide(channels, reparam, slots, {})
  np.testing.assert_array_equal(kept(channels, facts), [0, 1, 1, 1, 0, 1])
  np.testing.assert_array_equal(facts['choice'].choice, [1, 0])
  assert (float(facts['kernel'].bits), costs, dropped) == (8., {}, 0)


@pytest.mark.parametrize(('limit', 'left'), [(44., [1, 2, 3, 5]), (43.9, [1, 3, 5]), (30., [1, 5]), (23., [5])])
def test_the_least_probable_channels_go_and_no_more_than_needed(limit, left):
  """Each hidden channel costs 4 + 3 MACs beside 16 of the operator."""
  channels, reparam, slots, budgets = searched()
  facts, costs, dropped = train.decide(channels, reparam, slots, budgets(limit))
  np.testing.assert_array_equal(np.flatnonzero(kept(channels, facts)), left)
  assert costs == {'macs': 16. + 7. * len(left)} and dropped == 4 - len(left)


def test_out_of_reach_is_said_with_the_value():
  channels, reparam, slots, budgets = searched()
  with pytest.raises(EffjaxError, match=r"'macs' of 1 is out of reach: .* with one channel per group, it still costs 7;"):
    train.decide(channels, reparam, slots, budgets(1.))


def without_gates(where, rule, logits):
  """Reparam and slots of one relaxed leaf of `fn`."""
  params = {'w1': jnp.ones((4, 4)), 'choice': jnp.ones(2) / 2, 'kernel': jnp.ones((4, 6)), 'out': jnp.ones((6, 3))}
  reparam = at(where, rule)
  slots = reparam.init(jax.random.key(0), params)
  slots.phi[where]['logits'] = jnp.asarray(logits)
  return graph.channels(fn, params, X), graph.profile(fn, params, X[:1]), reparam, slots


@pytest.mark.parametrize(('limit', 'operator'), [(58., 0), (57.9, 1), (42., 1)])
def test_an_operator_gives_way_where_no_channel_can(limit, operator):
  """16 MACs of operator 0, none of operator 1, 24 + 18 of the rest."""
  channels, profile, reparam, slots = without_gates('choice', search.softmax(), [2., 0.])
  budgets = {'macs': train.Budget(lambda facts: cost.macs(profile, facts), limit)}
  facts, costs, dropped = train.decide(channels, reparam, slots, budgets)
  np.testing.assert_array_equal(facts['choice'].choice, np.eye(2)[operator])
  assert costs == {'macs': 58. - 16. * operator} and dropped == 0


def test_widths_give_way():
  channels, profile, reparam, slots = without_gates('kernel', quantize.mixed_bits((4, 8)), [0., 1.])
  at_8 = {row.path: Fact(bits=jnp.float32(8)) for row in profile.rows}
  size = lambda facts: cost.flash_bytes(profile, at_8 | facts)
  limit = float(size({})) - 1
  facts, costs, _ = train.decide(channels, reparam, slots, {'flash_bytes': train.Budget(size, limit)})
  assert facts['kernel'].bits == 4 and facts['kernel'].scale is None and costs['flash_bytes'] == float(size({})) - 12
  with pytest.raises(EffjaxError, match=r"'flash_bytes' of 10 is out of reach: after every change .* helps it still"):
    train.decide(channels, reparam, slots, {'flash_bytes': train.Budget(size, 10.)})


def test_operators_give_way_where_one_channel_each_is_too_much():
  channels, reparam, slots, budgets = searched()
  facts, costs, _ = train.decide(channels, reparam, slots, budgets(8.))
  np.testing.assert_array_equal(facts['choice'].choice, [0, 1])
  assert costs['macs'] <= 8


@pytest.mark.parametrize('seed', range(5))
def test_what_is_given_up_is_the_least_of_all_networks_that_fit(seed):
  """Of three choices of one budget whose swaps save alike per log probability, greedy is exact: one swap each."""
  logits = np.random.default_rng(seed).normal(size=(3, 2))
  soft = {str(i): Fact(choice=jax.nn.softmax(jnp.asarray(row))) for i, row in enumerate(logits)}
  hard = {path: Fact(choice=jnp.round(fact.choice)) for path, fact in soft.items()}
  dear = {path: int(fact.choice.argmax()) for path, fact in soft.items()}  # the more probable entry costs 1, else 0
  count = train.Budget(lambda facts: sum(facts[path].choice[i] for path, i in dear.items()), 1.)
  found = affordable(hard, soft, {'count': count}, {})
  kept_one = max(dear, key=lambda path: float(soft[path].choice.max()))
  assert [path for path, i in dear.items() if found[path].choice[i] == 1] == [kept_one]


def test_the_hard_facts_are_what_the_profile_of_the_hardened_network_counts():
  channels, reparam, slots, budgets = searched()
  found = train.harden(fn, channels, reparam, slots, X, budgets=budgets(30.))
  profile = graph.profile(found.fn, found.params, X[:1])
  assert float(cost.macs(profile, {})) == found.costs['macs'] == 30.
  assert set(tree.leaves(found.params)) == {'w1', 'kernel', 'out'} and found.bits == {'kernel': 8}
  latent = train.latent(channels, slots, found.facts)
  np.testing.assert_allclose(found.fn(found.params, X), fn(latent, X), rtol=1e-5)


def test_smallest_is_the_least_of_all_networks():
  channels, _, _, budgets = searched()
  budgets = budgets(100.)
  got = train.smallest(budgets, channels, {})
  every = []
  for mask in range(1, 2**channels.size):
    keep = np.array([mask >> i & 1 for i in range(channels.size)], np.float32)
    if all(keep[channels.groups == g].any() for g in np.unique(channels.groups)):
      facts = {CHANNELS: Fact(keep=jnp.asarray(keep))}
      every += [float(budgets['macs'].cost(facts | {'choice': Fact(choice=jnp.eye(2)[i])})) for i in range(2)]
  assert got == {'macs': min(every)}
