"""What a choice may be about: kernel size, depth, rank and bits at once, in one network, each cost against enumeration."""
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import cost, graph, tree
from effjax.layers import ConvBN
from effjax.quantize.mixed_bits import mixed_bits
from effjax.reparam import at, chain
from effjax.search.choice import Choice, Skip
from effjax.search.encoding import count, one_hot, put, space_of
from effjax.search.low_rank import LowRank
from effjax.search.merged import MergedConv
from effjax.search.softmax import softmax

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (1, 6, 6, 4))
SIZES, RANKS, BITS = (3, 5), (1, 3), (4, 8)


class Net(nn.Module):
  """A kernel size, a block or nothing, a rank, and a classifier whose bits are open."""
  merged: bool

  @nn.compact
  def __call__(self, x, train):
    x = MergedConv(4, tuple(f'k{k}' for k in SIZES), merged=self.merged, name='kernel')(x, train)
    x = Choice((ConvBN(4, name='block', parent=None), Skip(name='skip', parent=None)), name='depth')(nn.relu(x), train)
    x = LowRank(6, tuple(f'r{r}' for r in RANKS), merged=self.merged, name='rank')(x, train)
    return nn.Dense(3, use_bias=False, name='classifier')(x.mean((1, 2)))


@functools.cache
def start():
  """Variables, the search, its slots with logits that differ, and the profile."""
  variables = jax.jit(lambda: Net(False).init(KEY, X, False))()
  search = chain(at('.*choice', softmax()), at('classifier/kernel', mixed_bits(BITS)))
  slots = search.init(KEY, variables['params'])
  moved = tree.map_at(lambda path, a: jax.random.normal(tree.fold(KEY, path), a.shape) if path.endswith('logits') else a,
                      slots.phi, tree.leaves(slots.phi))
  net = lambda params, x: Net(False).apply({**variables, 'params': params}, x, False)
  return variables, search, slots._replace(phi=moved), graph.profile(net, variables['params'], X)


def by_hand(kernel, depth, rank, bits):
  """Multiply-accumulates, each times the bits of its weight and the 8 of what it is multiplied with."""
  conv, block, factors = 36 * SIZES[kernel]**2 * 16, 36 * 9 * 16 * (depth == 0), 36 * RANKS[rank] * (4 + 6)
  return conv + block + factors + 18, 8 * (32 * (conv + block + factors) + BITS[bits] * 18)


def test_the_space_has_an_entry_for_each_operator_axis():
  space = space_of(Net(True), X, False)
  assert space == {'kernel/choice': ('k3', 'k5'), 'depth/choice': ('block', 'skip'), 'rank/choice': ('r1', 'r3')}
  assert count(space) == 8


def test_expected_costs_multiply_over_the_axes():
  _, search, slots, profile = start()
  facts = search.facts(slots, False)
  p = [np.float64(facts[path].choice) for path in ('kernel/choice', 'depth/choice', 'rank/choice', 'classifier/kernel')]
  each = [(np.prod([q[i] for q, i in zip(p, which)]), by_hand(*which)) for which in itertools.product(range(2), repeat=4)]
  for i, measure in enumerate((cost.macs, cost.bitops)):
    want = sum(probability * costs[i] for probability, costs in each)
    np.testing.assert_allclose(measure(profile, facts), want, rtol=1e-6)


def test_every_axis_gets_a_gradient_of_loss_and_cost_together():
  variables, search, slots, profile = start()

  def loss(phi):
    params = search.apply(slots.theta, phi, slots.state, KEY)
    y = Net(True).apply({**variables, 'params': params}, X, False)
    return jnp.sum(jnp.sin(y)) + 1e-6 * cost.bitops(profile, search.facts(slots._replace(phi=phi), False))

  logits = {path: g for path, g in tree.leaves(jax.jit(jax.grad(loss))(slots.phi)).items() if path.endswith('logits')}
  assert len(logits) == 4
  for path, g in logits.items():
    assert bool(jnp.isfinite(g).all()) and bool((g != 0).all()), path


@pytest.mark.parametrize('which', [(0, 0, 1), (1, 1, 0)])
def test_one_architecture_is_the_network_without_choices(which):
  variables = start()[0]
  taken = one_hot(space_of(Net(True), X, False), np.array(which))
  params = put(variables['params'], taken)
  w, rank = params['kernel'][f'k{SIZES[which[0]]}']['kernel'], RANKS[which[2]]
  y = nn.relu(jax.lax.conv_general_dilated(X, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')))
  if which[1] == 0:
    y = ConvBN(4).apply({kind: part['depth']['block'] for kind, part in variables.items()}, y, False)
  y = (y @ params['rank']['u'][:, :rank] @ params['rank']['v'][:rank]).mean((1, 2)) @ params['classifier']['kernel']
  for merged in (True, False):
    got = jax.jit(lambda net: net.apply({**variables, 'params': params}, X, False), static_argnums=0)(Net(merged))
    np.testing.assert_allclose(got, y, rtol=1e-4, atol=1e-5)
  net = lambda params, x: Net(False).apply({**variables, 'params': params}, x, False)
  keep, choose = np.ones(graph.channels(net, params, X).size, bool), {path: int(p.argmax()) for path, p in taken.items()}
  small, smaller = graph.shrink(net, params, keep, X, choose=choose)
  np.testing.assert_allclose(jax.jit(small)(smaller, X), y, rtol=1e-4, atol=1e-5)
  assert float(cost.macs(graph.profile(small, smaller, X), {})) == by_hand(*which, 0)[0]
