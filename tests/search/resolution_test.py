"""A choice of resolution, against interpolation by hand."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import cost, graph, search, train
from effjax.errors import EffjaxError
from effjax.layers import ConvBN
from effjax.reparam import Fact
from effjax.search.encoding import space_of
from effjax.search.resolution import Resolution

KEY = jax.random.key(0)
SIZES = (9, 6, 4)
OPERATORS = tuple(f's{size}' for size in SIZES)
P = np.array([.2, .5, .3])


class Net(nn.Module):
  """Images to three logits."""
  dtype: type | None = None

  @nn.compact
  def __call__(self, x, train):
    x = ConvBN(4, 3, name='conv', dtype=self.dtype)(x, train)
    return nn.Dense(3, name='classifier', dtype=self.dtype)(x.mean((1, 2)))


def start(dtype=jnp.float32):
  x = jax.random.normal(KEY, (2, 9, 9, 2), dtype)
  net = Resolution(Net(), OPERATORS)
  return net, jax.jit(lambda: net.init(KEY, x, False))(), x


def resized(x, size):
  """Bilinear, half-pixel centres, what is outside is the nearest edge."""
  at = np.clip((np.arange(size) + .5) * len(x[0]) / size - .5, 0, len(x[0]) - 1)
  low = np.minimum(np.floor(at).astype(int), len(x[0]) - 2)
  part = (at - low)[:, None]
  rows = x[:, low] * (1 - part[..., None]) + x[:, low + 1] * part[..., None]
  return rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part


def macs_at(size):
  """Resizing is two products, of the rows and of the columns; a convolution of 3x3 from 2 to 4 channels; the classifier."""
  resizing = 0 if size == 9 else 2 * (size * 9 * 9 + size * size * 9)
  return resizing + size ** 2 * 9 * 2 * 4 + 12


def with_choice(variables, p):
  return {**variables, 'params': variables['params'] | {'choice': jnp.asarray(p, jnp.float32)}}


def test_it_is_the_sum_over_sizes_and_the_choice_gets_what_each_gives():
  net, variables, x = start()
  terms = [Net().apply({kind: part['net'] for kind, part in variables.items()},
                       jnp.asarray(resized(np.float64(x), size), jnp.float32), False) for size in SIZES]
  run = jax.jit(lambda p: net.apply(with_choice(variables, p), x, False))
  np.testing.assert_allclose(run(P), sum(p * y for p, y in zip(P, terms)), rtol=1e-4, atol=1e-5)
  gradient = jax.grad(lambda p: run(p).sum())(jnp.asarray(P, jnp.float32))
  np.testing.assert_allclose(gradient, [y.sum() for y in terms], rtol=1e-4, atol=1e-5)


def test_expected_macs_are_the_mean_over_sizes_and_weights_are_stored_once():
  net, variables, x = start()
  fn = lambda params, x: net.apply({**variables, 'params': params}, x, False)
  profile, facts = graph.profile(fn, variables['params'], x[:1]), {'choice': Fact(choice=jnp.asarray(P, jnp.float32))}
  np.testing.assert_allclose(cost.macs(profile, facts), P @ [macs_at(size) for size in SIZES], rtol=1e-6)
  weights = sum(x.size for x in jax.tree.leaves(variables['params']['net']))
  assert float(cost.params(profile, facts)) == weights


@pytest.mark.parametrize('i', range(3))
def test_one_size_is_the_network_behind_a_resizing(i):
  net, variables, x = start()
  params, derived = with_choice(variables, np.eye(3)[i])['params'], search.Derived(net, {'choice': OPERATORS[i]})
  inherited = derived.inherited(variables, x, False)
  assert jax.tree.structure(inherited['params']) == jax.tree.structure({'net': params['net']})
  want = Net().apply({kind: part['net'] for kind, part in variables.items()},
                     jnp.asarray(resized(np.float64(x), SIZES[i]), jnp.float32), False)
  np.testing.assert_allclose(derived.apply(inherited, x, False), want, rtol=1e-4, atol=1e-5)
  fn = lambda params, x: net.apply({**variables, 'params': params}, x, False)
  keep = np.ones(graph.channels(fn, params, x).size, bool)
  small, smaller = graph.shrink(fn, params, keep, x, choose={'choice': i})
  np.testing.assert_allclose(jax.jit(small)(smaller, x), want, rtol=1e-4, atol=1e-5)
  assert float(cost.macs(graph.profile(small, smaller, x[:1]), {})) == macs_at(SIZES[i])


def test_statistics_are_of_all_sizes_until_they_are_estimated_again():
  net, variables, x = start()
  _, new = net.apply(variables, x, True, mutable=['batch_stats'])
  derived = search.Derived(net, {'choice': 's4'})
  inherited = derived.inherited({**variables, **new}, x, False)
  forward = lambda params, stats, batch, key: derived.apply({'params': params, **stats}, batch['image'], True,
                                                           mutable=['batch_stats'])
  stats = train.reestimate(forward, inherited['params'], {'batch_stats': inherited['batch_stats']}, [{'image': x}])
  y = nn.Conv(4, (3, 3), use_bias=False).apply({'params': {'kernel': variables['params']['net']['conv']['conv']['kernel']}},
                                               jnp.asarray(resized(np.float64(x), 4), jnp.float32))
  np.testing.assert_allclose(stats['batch_stats']['net']['conv']['bn']['mean'], y.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
  assert new['batch_stats']['net']['conv']['bn']['mean'].shape == (4,)


def test_the_space_and_dtypes():
  net, variables, x = start()
  assert space_of(net, x, False) == {'choice': OPERATORS}
  half = Resolution(Net(jnp.bfloat16), OPERATORS).apply(variables, x, False)
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.float32(half), net.apply(variables, x, False), rtol=.05, atol=.05)


ERRORS = {'Decision (top): no candidates: give it the name of an operator': (),
          "Resolution (top): unknown operator 's0': known are 's<size>' such as s24": ('s9', 's0')}


@pytest.mark.parametrize('text', ERRORS)
def test_errors(text):
  with pytest.raises(EffjaxError) as error:
    Resolution(Net(), ERRORS[text]).init(KEY, jnp.ones((2, 9, 9, 2)), False)
  assert str(error.value) == text


def test_a_net_without_a_mean_is_refused():
  with pytest.raises(EffjaxError, match=r"^Resolution \(top\): candidate 's6' gives shape \(2, 6, 6, 4\), candidate 's9' gi"):
    Resolution(ConvBN(4, 3), ('s9', 's6')).init(KEY, jnp.ones((2, 9, 9, 2)), False)
