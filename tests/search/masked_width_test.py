"""A width as a masked operator: against the narrow operator, and its cost against enumeration."""
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import cost, graph, tree
from effjax.errors import EffjaxError
from effjax.layers import ConvBN
from effjax.reparam import CHANNELS, Fact, at, chain
from effjax.search import gumbel, softmax
from effjax.search.choice import Skip
from effjax.search.derived import Derived
from effjax.search.encoding import one_hot, put, space_of
from effjax.search.masked_width import MaskedWidth, expected_mask, kept_widths

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 5, 5, 3))
WIDTHS = {'a/width/choice': (2, 6, 4), 'b/width/choice': (1, 5)}
LEAVES = {'a/width/choice': 'a/conv/conv/kernel', 'b/width/choice': 'b/conv/bn/scale'}


class Net(nn.Module):
  """Two convolutions whose widths are open, a dense layer."""
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x, train):
    for name, kernel in (('a', 3), ('b', 1)):
      widths = WIDTHS[f'{name}/width/choice']
      op = ConvBN(max(widths), kernel, activation=nn.relu, dtype=self.dtype, name='conv', parent=None)
      x = MaskedWidth(op, widths, name=name)(x, train)
    return nn.Dense(3, dtype=self.dtype, name='dense')(x.mean((1, 2)))


@pytest.fixture(scope='module')
def net():
  """The function, its parameters, its space, its profile."""
  random, shapes = np.random.default_rng(0), jax.eval_shape(lambda: Net().init(KEY, X, False))
  variables = jax.tree.map(lambda x: jnp.asarray(random.uniform(-.5, .5, x.shape) ** 2 + .1, jnp.float32), shapes)
  fn = lambda params, x: Net().apply({**variables, 'params': params}, x, False)
  return fn, variables, space_of(Net(), X, False), graph.profile(fn, variables['params'], X[:1])


def architectures(space):
  return [dict(zip(space, names)) for names in itertools.product(*space.values())]


def narrow(variables, a, b):
  """The network of these widths: their first channels."""
  def cut(path, x):
    if path.endswith('a/conv/conv/kernel'):
      return x[..., :a]
    if path.endswith('b/conv/conv/kernel'):
      return x[:, :, :a, :b]
    if path.endswith('dense/kernel'):
      return x[:b]
    return x[:a] if '/a/' in path else x[:b] if '/b/' in path else x
  found = tree.map_at(cut, variables, tree.leaves(variables))
  conv = lambda name, width, kernel, x: ConvBN(width, kernel, activation=nn.relu).apply(
      {kind: part[name]['conv'] for kind, part in found.items()}, x, False)
  x = conv('b', b, 1, conv('a', a, 3, X))
  return x.mean((1, 2)) @ found['params']['dense']['kernel'] + found['params']['dense']['bias'][None]


def test_the_space(net):
  assert {path: tuple(map(int, names)) for path, names in net[2].items()} == WIDTHS


def test_a_one_hot_is_the_narrow_network_with_the_same_parameters(net):
  fn, variables, space, _ = net
  forward = jax.jit(fn)
  for architecture in architectures(space)[1::2]:
    chosen = put(variables['params'], one_hot(space, architecture))
    want = narrow(variables, *map(int, architecture.values()))
    np.testing.assert_allclose(forward(chosen, X), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(Derived(Net(), architecture).apply(variables, X, False), want, rtol=1e-4, atol=1e-5)


def test_the_mask_is_the_expectation_and_its_sum_the_expected_width():
  p = np.random.default_rng(0).dirichlet(np.ones(3))
  want = [sum(q for q, width in zip(p, (2, 6, 4)) if width > channel) for channel in range(6)]
  mask = expected_mask(jnp.asarray(p, jnp.float32), (2, 6, 4))
  np.testing.assert_allclose(mask, want, rtol=1e-6)
  assert float(mask.sum()) == pytest.approx(p @ [2, 6, 4], rel=1e-6)


def test_the_sum_of_masked_operators_and_its_derivative():
  """`y = sum_i p_i (op(x) mask_i)`: the sum of branches that share a kernel, and `dL/dp_i = <dL/dy, op(x) mask_i>`."""
  layer, g = MaskedWidth(ConvBN(6, name='conv'), (2, 6, 4)), jax.random.normal(KEY, (2, 5, 5, 6))
  variables = layer.init(KEY, X, False)
  full = ConvBN(6).apply({kind: part['conv'] for kind, part in variables.items()}, X, False)
  branches = [jnp.where(np.arange(6) < width, full, 0.) for width in (2, 6, 4)]
  p = jnp.array([.2, .5, .3])
  apply = jax.jit(lambda p: layer.apply({**variables, 'params': {**variables['params'], 'width': {'choice': p}}}, X, False))
  np.testing.assert_allclose(apply(p), sum(q * y for q, y in zip(p, branches)), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(jax.grad(lambda p: jnp.sum(g * apply(p)))(p), [jnp.sum(g * y) for y in branches],
                             rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('rule', [softmax(), gumbel(temperature=1.)], ids=['softmax', 'gumbel'])
def test_rules_search_it_and_every_leaf_trains(net, rule):
  variables = net[1]
  reparam = chain(at('.*choice', rule))
  slots = reparam.init(KEY, variables['params'])

  @jax.jit
  def gradients(theta, phi):
    def loss(theta, phi):
      params = reparam.apply(theta, phi, slots.state, KEY)
      y, _ = Net().apply({**variables, 'params': params}, X, True, mutable=['batch_stats'])
      return jnp.sum(jnp.sin(y) * jnp.arange(1., 7.).reshape(2, 3))
    return jax.grad(loss, (0, 1))(theta, phi)

  found = tree.leaves(gradients(slots.theta, slots.phi))
  assert [path for path, g in found.items() if not np.any(g)] == []
  assert {g.shape for path, g in found.items() if path.endswith('logits')} == {(3,), (2,)}


def macs(a, b):
  return 25 * (9 * 3 * a + a * b) + b * 3


def test_the_expected_cost_is_that_of_enumeration(net):
  _, _, space, found = net
  random = np.random.default_rng(0)
  p = {path: random.dirichlet(np.ones(len(names))) for path, names in space.items()}
  facts = {path: Fact(choice=jnp.asarray(q, jnp.float32)) for path, q in p.items()}
  want = sum(qa * qb * macs(a, b) for qa, a in zip(p['a/width/choice'], (2, 6, 4))
             for qb, b in zip(p['b/width/choice'], (1, 5)))
  assert float(cost.macs(found, kept_widths(found, space, LEAVES, facts))) == pytest.approx(want, rel=1e-6)
  gradient = jax.grad(lambda q: cost.macs(found, kept_widths(found, space, LEAVES, facts | {
      'a/width/choice': Fact(choice=q)})))(facts['a/width/choice'].choice)
  mean = p['b/width/choice'] @ [1, 5]
  np.testing.assert_allclose(gradient - gradient[0], np.array([0, 4, 2]) * 25 * (27 + mean), rtol=1e-5)


def test_hard_facts_count_and_shrink_the_narrow_network(net):
  fn, variables, space, found = net
  for architecture in architectures(space)[::2]:
    a, b = map(int, architecture.values())
    facts = kept_widths(found, space, LEAVES, {path: Fact(choice=p) for path, p in one_hot(space, architecture).items()})
    keep = np.asarray(facts[CHANNELS].keep) > 0
    choose = {path: names.index(architecture[path]) for path, names in space.items()}
    small, less = graph.shrink(fn, variables['params'], keep, X[:1], choose=choose)
    assert less['a']['conv']['conv']['kernel'].shape == (3, 3, 3, a)
    assert less['b']['conv']['conv']['kernel'].shape == (1, 1, a, b)
    assert less['a']['width']['choice'] is None and less['b']['width']['choice'] is None
    assert float(cost.macs(found, facts)) == float(cost.macs(graph.profile(small, less, X[:1]), {})) == macs(a, b)
    np.testing.assert_allclose(small(less, X), narrow(variables, a, b), rtol=1e-4, atol=1e-5)


def test_what_facts_keep_already_is_multiplied(net):
  _, _, space, found = net
  facts = {path: Fact(choice=jnp.full(len(names), 1 / len(names))) for path, names in space.items()}
  gate = jnp.linspace(.1, .9, found.groups.size)
  both = kept_widths(found, space, LEAVES, facts | {CHANNELS: Fact(keep=gate)})[CHANNELS].keep
  np.testing.assert_allclose(both, gate * kept_widths(found, space, LEAVES, facts)[CHANNELS].keep, rtol=1e-6)


def test_dtype():
  net = Net(jnp.bfloat16)
  variables = jax.eval_shape(lambda: net.init(KEY, X, False))
  assert jax.eval_shape(lambda v: net.apply(v, X, False), variables).dtype == jnp.bfloat16
  assert expected_mask(jnp.full(2, .5, jnp.bfloat16), (1, 2)).dtype == jnp.bfloat16


def of_leaf(choice, leaf, facts=None):
  def run(net):
    _, _, space, found = net
    kept_widths(found, space, {choice: leaf}, {'a/width/choice': Fact(choice=jnp.ones(3))} if facts is None else facts)
  return run


def of_output(net):
  fn = lambda p, x: (x @ p['w']) * p['choice'][0]
  found = graph.profile(fn, {'w': jnp.ones((2, 3)), 'choice': jnp.ones(2)}, jnp.ones((1, 2)))
  kept_widths(found, {'choice': ('1', '3')}, {'choice': 'w'}, {'choice': Fact(choice=jnp.ones(2))})


ERRORS = {
    "MaskedWidth (top): 'skip' gives 3 channels, wanted the largest of widths (2, 4): make it that wide":
        lambda net: MaskedWidth(Skip(name='skip'), (2, 4)).init(KEY, X, False),
    'MaskedWidth (top): widths (3, 3), wanted distinct positive numbers':
        lambda net: MaskedWidth(Skip(name='skip'), (3, 3)).init(KEY, X, False),
    'MaskedWidth (top): widths (), wanted distinct positive numbers':
        lambda net: MaskedWidth(Skip(name='skip'), ()).init(KEY, X, False),
    'expected_mask: 3 probabilities, wanted one for each of 2 widths': lambda net: expected_mask(jnp.ones(3), (1, 2)),
    "kept_widths: 'c' is no choice of the space: known are ['a/width/choice', ": of_leaf('c', 'a/conv/bn/scale'),
    "kept_widths: 'a/width/choice' is no fact: known are []": of_leaf('a/width/choice', 'a/conv/bn/scale', {}),
    "kept_widths: 'a/kernel' is no leaf of the network: known are ['a/conv/bn/bias', ":
        of_leaf('a/width/choice', 'a/kernel'),
    "kept_widths: the last axis of 'b/conv/bn/scale' has 5 entries, 'a/width/choice' has widths (2, 6, 4): name the leaf":
        of_leaf('a/width/choice', 'b/conv/bn/scale'),
    "kept_widths: 2 channels that 'choice' masks cannot be removed from 'w': they reach an input or output, ask ":
        of_output}


@pytest.mark.parametrize('text', ERRORS)
def test_errors(net, text):
  with pytest.raises(EffjaxError) as error:
    ERRORS[text](net)
  assert str(error.value).startswith(text)
