"""Costs against enumeration: the expectation over operators, channels and bits is that of all hard networks."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import cost, graph
from effjax.cost.flash_bytes import container
from effjax.reparam import CHANNELS, Fact

KEEP = np.array([.9, .3, .6])
CHOICE = {'c': np.array([.2, .5, .3])}
BITS = {'a': ([2., 8.], [.25, .75]), 'b': ([4., 8.], [.6, .4])}


def fn(p, x):
  """Three operators, two of which weigh the input; the first has three hidden channels."""
  c = p['c']
  return (c[0] * (jax.nn.relu(x @ p['a']) @ p['b']) + c[1] * (x @ p['d']) + c[2] * x) @ p['e']


PARAMS = {'a': jnp.ones((4, 3)), 'b': jnp.ones((3, 4)), 'c': jnp.ones(3) / 3, 'd': jnp.ones((4, 4)),
          'e': jnp.ones((4, 2))}
X = jnp.ones((1, 4))


def profile():
  return graph.profile(fn, PARAMS, X)


def hidden(values):
  """The keep vector of the three hidden channels, among all channels of the function."""
  found = graph.channels(fn, PARAMS, X)
  keep = np.ones(found.size)
  keep[found.members['a'][1]] = values
  return jnp.asarray(keep, jnp.float32)


def soft():
  real = lambda x: jnp.asarray(x, jnp.float32)
  facts = {path: Fact(bits=real(b), choice=real(p)) for path, (b, p) in BITS.items()}
  facts |= {'d': Fact(bits=real(8)), 'e': Fact(bits=real(3)), 'c': Fact(choice=real(CHOICE['c']))}
  return facts | {CHANNELS: Fact(keep=hidden(KEEP))}


def hard():
  """Every hard network with its probability."""
  for i, keep, ba, bb in itertools.product(range(3), itertools.product((0, 1), repeat=3), range(2), range(2)):
    p = CHOICE['c'][i] * np.prod(np.where(keep, KEEP, 1 - KEEP)) * BITS['a'][1][ba] * BITS['b'][1][bb]
    yield p, i, sum(keep), BITS['a'][0][ba], BITS['b'][0][bb]


def counts(operator, kept):
  return {'a': 4 * kept * (operator == 0), 'b': 4 * kept * (operator == 0), 'd': 16 * (operator == 1), 'e': 8}


def test_macs_are_the_mean_over_all_networks():
  want = sum(p * sum(counts(i, kept).values()) for p, i, kept, _, _ in hard())
  np.testing.assert_allclose(cost.macs(profile(), soft()), want, rtol=1e-6)


def test_bitops_are_the_mean_over_all_networks():
  bits = lambda a, b: {'a': a, 'b': b, 'd': 8, 'e': 3}
  want = sum(p * sum(n * bits(a, b)[path] * 8 for path, n in counts(i, kept).items()) for p, i, kept, a, b in hard())
  np.testing.assert_allclose(cost.bitops(profile(), soft()), want, rtol=1e-6)


def test_flash_bytes_are_the_mean_over_all_networks():
  stored = lambda b: 4 if b <= 4 else 8
  outputs = lambda i, kept: {'a': kept * (i == 0), 'b': 4 * (i == 0), 'd': 4 * (i == 1), 'e': 2}

  def size(i, kept, a, b):
    bits = {'a': a, 'b': b, 'd': 8, 'e': 3}
    return sum(n * stored(bits[path]) / 8 + 8 * outputs(i, kept)[path] for path, n in counts(i, kept).items())
  want = sum(p * size(i, kept, a, b) for p, i, kept, a, b in hard())
  np.testing.assert_allclose(cost.flash_bytes(profile(), soft()), want, rtol=1e-6)


def test_peak_ram_of_a_chain_by_hand():
  """x, then hidden: 4 + 6 entries; then hidden and output: 6 + 3; the ReLU takes its input's place."""
  chain = lambda p, x: jax.nn.relu(x @ p['a'] + p['bias']) @ p['b']
  found = graph.profile(chain, {'a': jnp.ones((4, 6)), 'bias': jnp.ones((1, 6)), 'b': jnp.ones((6, 3))}, X)
  assert float(cost.peak_ram(found, {})) == 10.
  assert float(cost.peak_ram(found, {}, bytes_per_entry=4.)) == 40.
  half = {CHANNELS: Fact(keep=jnp.full(6, .5))}
  assert float(cost.peak_ram(found, half)) == 7.


@pytest.mark.parametrize('each', [cost.macs, cost.bitops, cost.flash_bytes, cost.peak_ram])
def test_costs_are_differentiable_in_all_facts_at_once(each):
  """Central differences in float64-accurate steps agree with autodiff in keep, choice and bits."""
  def value(keep, choice, p):
    facts = soft() | {'c': Fact(choice=choice), 'a': Fact(bits=jnp.asarray(BITS['a'][0], jnp.float32), choice=p)}
    return each(profile(), facts | {CHANNELS: Fact(keep=keep)})
  at = (hidden(KEEP), jnp.asarray(CHOICE['c'], jnp.float32), jnp.asarray(BITS['a'][1], jnp.float32))
  gradient = jax.grad(value, argnums=(0, 1, 2))(*at)
  for i, g in enumerate(gradient):
    for j in range(len(g)):
      move = lambda e, i=i, j=j: tuple(a.at[j].add(e) if k == i else a for k, a in enumerate(at))
      difference = (value(*move(.05)) - value(*move(-.05))) / .1
      np.testing.assert_allclose(g[j], difference, rtol=2e-3, atol=2e-3)


def test_containers():
  np.testing.assert_array_equal(container(jnp.arange(2., 9.)), [4, 4, 4, 8, 8, 8, 8])


def test_a_weight_used_twice_is_stored_once_and_computed_twice():
  found = graph.profile(lambda p, x: (x @ p['w']) @ p['w'], {'w': jnp.ones((4, 4))}, X)
  assert float(cost.macs(found, {})) == 32.
  assert float(cost.flash_bytes(found, {'w': Fact(bits=jnp.float32(8))})) == 16 + 8 * 4
