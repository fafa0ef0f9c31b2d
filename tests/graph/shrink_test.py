"""The law of the graph: masking a channel on every leaf that it touches equals removing it."""
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effjax import cost, graph, ste, tree
from effjax.errors import EffjaxError
from effjax.graph import profile as profile_of
from effjax.reparam import CHANNELS, Fact

spec = importlib.util.spec_from_file_location('networks', pathlib.Path(__file__).with_name('networks.py'))
networks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(networks)
TABLE = networks.table()
COUNTS = {  # prunable channels in each group, by hand
    'Plain': [6, 8], 'Residual': [4, 6, 4], 'DenseConcat': [4, 4, 4], 'Shuffled': [8 // 2, 3, 8 // 2],
    'Split': [2, 2, 4], 'Grouped': [9 // 3, 12 // 3, 6], 'Depthwise': [6, 12], 'SqueezeExcite': [8, 3],
    'Flatten': [6, 7], 'Attention': [8, 12, 2, 4, 4], 'Transposed': [5, 6, 4, 6], 'padded': [3, 5]}


@pytest.fixture(autouse=True)
def _loose():
  """Flax's own layers promote ranks and dtypes."""
  with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
    yield


def run(fn, *args):
  """`fn(*args)`, compiled in one: operation by operation, compiling takes much longer."""
  return jax.jit(fn)(*args)


def keep_of(found, seed, share=.6):
  keep = np.random.default_rng(seed).random(found.size) < share
  for group in range(found.groups.max() + 1):  # an axis of one entry is no choice any more
    keep[np.flatnonzero(found.groups == group)[:2]] = True
  keep[np.argmax(found.groups == np.argmax(np.bincount(found.groups))) + 2] = False
  return keep


@pytest.mark.parametrize('name', TABLE)
def test_channels_are_those_counted_by_hand(name):
  fn, params, x = TABLE[name]
  found = graph.channels(fn, params, x)
  assert sorted(np.bincount(found.groups)) == sorted(COUNTS[name])
  assert found.unknown == ()


@pytest.mark.parametrize('name', TABLE)
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(.1, .9))
def test_masked_equals_removed(name, seed, share):
  fn, params, x = TABLE[name]
  found = graph.channels(fn, params, x)
  keep = keep_of(found, seed, share)
  small, less = graph.shrink(fn, params, keep, x)
  both = jax.jit(lambda keep, gates: (fn(graph.mask(found, params, keep), x), fn(graph.gate(found, params, gates), x)))
  masked, gated = map(np.asarray, both(keep, jnp.asarray(keep, jnp.float32)))
  assert np.abs(masked - run(small, less, x)).max() <= 1e-5 * np.abs(masked).max()
  assert np.abs(masked - gated).max() <= 1e-5 * np.abs(masked).max()


@pytest.mark.parametrize('name', TABLE)
def test_profile_of_the_shrunk_function_is_what_the_facts_predicted(name):
  fn, params, x = TABLE[name]
  found, before = graph.channels(fn, params, x), profile_of(fn, params, x)
  keep = keep_of(found, 3)
  small, less = graph.shrink(fn, params, keep, x)
  after, facts = profile_of(small, less, x), {CHANNELS: Fact(keep=jnp.asarray(keep, jnp.float32))}
  costs = (cost.macs, cost.bitops, cost.flash_bytes, cost.peak_ram)
  predictions = run(lambda facts: [each(before, facts) for each in costs], facts)
  for each, predicted in zip(costs, predictions):
    assert float(predicted) == float(each(after, {})), each.__name__
    assert float(each(after, {})) < float(each(before, {})) or each is cost.peak_ram


# The generator's networks are shrunk twice, too.
@pytest.mark.parametrize('name', [name if name in ('Residual', 'Shuffled', 'Flatten', 'Attention', 'padded') else
                                  pytest.param(name, marks=pytest.mark.slow) for name in TABLE])
def test_removing_nothing_changes_nothing_and_twice_is_once(name):
  fn, params, x = TABLE[name]
  found = graph.channels(fn, params, x)
  same, all_params = graph.shrink(fn, params, np.ones(found.size, bool), x)
  np.testing.assert_array_equal(run(fn, params, x), run(same, all_params, x))
  small, less = graph.shrink(fn, params, keep_of(found, 5), x)
  again = graph.channels(small, less, x)
  assert again.size == keep_of(found, 5).sum()
  twice, least = graph.shrink(small, less, np.ones(again.size, bool), x)
  np.testing.assert_array_equal(run(small, less, x), run(twice, least, x))


@pytest.mark.parametrize('name', [name if name in ('Residual', 'Grouped', 'Flatten') else
                                  pytest.param(name, marks=pytest.mark.slow) for name in TABLE])
def test_the_shrunk_function_trains_at_any_batch_size_under_jit(name):
  fn, params, x = TABLE[name]
  found = graph.channels(fn, params, x)
  keep = keep_of(found, 7)
  small, less = graph.shrink(fn, params, keep, x)
  loss = lambda f: lambda p, x: jnp.sum(f(p, x)**2)
  got = tree.leaves(jax.jit(jax.grad(loss(small)))(less, x[:1]))
  full = tree.leaves(run(lambda p, x: jax.grad(loss(fn))(graph.mask(found, p, keep), x), params, x[:1]))
  for path, members in found.members.items():
    want = full[path]
    for axis, channel in enumerate(members):
      want = np.compress(np.append(keep, True)[channel], want, axis)
    np.testing.assert_allclose(got[path], want, rtol=2e-3, atol=1e-4 * (np.abs(want).max() + 1))


def test_custom_derivatives_survive():
  """Straight-through rounding keeps its gradient, as custom_jvp and as custom_vjp, at the new shapes."""
  @jax.custom_vjp
  def doubled_gradient(x):
    return x
  doubled_gradient.defvjp(lambda x: (x, None), lambda _, g: (2. * g,))
  fn = lambda p, x: ste.round(doubled_gradient(x @ p['a'])) @ p['b']
  params = {'a': jnp.ones((3, 4)), 'b': jnp.arange(8.).reshape(4, 2)}
  small, less = graph.shrink(fn, params, np.array([True, False, True, False]), jnp.ones((1, 3)))
  got = jax.grad(lambda p: small(p, jnp.ones((1, 3))).sum())(less)
  np.testing.assert_array_equal(got['a'], 2 * np.broadcast_to([0. + 1, 4. + 5], (3, 2)))


def test_closed_over_constants_are_cut():
  mean = jnp.arange(4.)[None]
  fn = lambda p, x: jax.nn.relu(x @ p['a'] - mean) @ p['b']
  params = {'a': 3. * jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}
  keep, x = np.array([True, False, True, True]), jnp.ones((1, 3))
  found = graph.channels(fn, params, x)
  assert found.size == 4
  small, less = graph.shrink(fn, params, keep, x)
  np.testing.assert_array_equal(small(less, x), jnp.full((1, 2), 9. + 7. + 6.))


def test_an_unknown_primitive_pins_and_is_reported_by_name():
  fn = lambda p, x: jnp.fft.fft(x @ p['a'], axis=-1).real @ p['b']
  params = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 5)), 'c': jnp.ones(2)}
  found = graph.channels(fn, params, jnp.ones((1, 3)))
  assert [name for name, _ in found.unknown] == ['fft']
  assert all((axis < 0).all() for axes in (found.members['a'], found.members['b']) for axis in axes)


@pytest.mark.parametrize('use', [
    lambda h: jax.nn.softmax(h), lambda h: jnp.max(h, -1, keepdims=True) + h * 0,
    lambda h: jnp.argmax(h, -1)[:, None].astype(jnp.float32) + h, lambda h: jnp.cumsum(h, -1),
    lambda h: h - jnp.mean(jnp.cos(h), -1, keepdims=True), lambda h: h / jnp.abs(h), lambda h: jnp.log(jnp.abs(h))])
def test_what_depends_on_masked_entries_pins(use):
  """Softmax, maxima, positions, sums of what is not zero, zero by zero: a mask would not be a removal there."""
  params = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}
  assert graph.channels(lambda p, x: use(x @ p['a']) @ p['b'], params, jnp.ones((2, 3))).size == 0


@pytest.mark.parametrize(('use', 'width'), [
    (lambda h: jnp.take(h, jnp.array([2, 0, 3, 1]), axis=-1), 4), (lambda h: h[:, jnp.arange(0, 4, 2)], 2),
    (lambda h: h * jnp.cos(jnp.arange(4.)), 4), (lambda h: jnp.cumsum(h, 0), 4), (lambda h: jnp.sort(h, 0), 4),
    (lambda h: jax.lax.dynamic_slice_in_dim(h, 1, 1, 0), 4), (lambda h: jax.lax.dynamic_update_slice(h, h[:1], (1, 0)), 4),
    (lambda h: jnp.where(jnp.arange(4) % 2 == 0, h, 0.), 4)])
def test_positions_and_tables_that_the_trace_knows_do_not_pin(use, width):
  rng = np.random.default_rng(0)
  params = {'a': jnp.asarray(rng.normal(size=(3, 4)), jnp.float32),
            'b': jnp.asarray(rng.normal(size=(width, 2)), jnp.float32)}
  fn, x = lambda p, x: use(x @ p['a']) @ p['b'], jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)
  found, keep = graph.channels(fn, params, x), np.array([True, False, True, True])
  assert found.size == 4 and found.unknown == ()
  small, less = graph.shrink(fn, params, keep, x)
  assert less['a'].shape == (3, 3)
  np.testing.assert_allclose(small(less, x), fn(graph.mask(found, params, keep), x), rtol=1e-5)


def test_what_leads_to_no_output_does_not_pin():
  def fn(p, x):
    h = x @ p['a']
    jnp.argmax(h, -1)
    return h @ p['b']
  params = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}
  assert graph.channels(fn, params, jnp.ones((1, 3))).size == 4
  assert [eqn.name for eqn in graph.trace(fn, params, jnp.ones((1, 3))).eqns] == ['dot_general', 'dot_general']


def test_a_print_stays_in_the_small_network(capsys):
  def fn(p, x):
    h = x @ p['a']
    jax.debug.print('sum {} of {}', h.sum(), jnp.arange(3).sum())
    return h @ p['b']
  params = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}
  small, less = graph.shrink(fn, params, np.array([True, True, False, False]), jnp.ones((1, 3)))
  capsys.readouterr()
  small(less, jnp.ones((1, 3)))
  jax.effects_barrier()
  assert capsys.readouterr().out == 'sum 6.0 of 3\n'


def test_weights_made_of_several_leaves_are_gated_once_at_each():
  """An LSTM's kernels side by side, a sum of two, one times a constant; relaxed gates, so that a square shows."""
  rng = np.random.default_rng(0)
  params = {name: jnp.asarray(rng.normal(size=(4, 4)), jnp.float32) for name in 'abcdef'}

  def fn(p, x):
    h = jnp.split(jnp.tanh(x @ p['a']) @ jnp.concatenate([p['b'], p['c']], 1), 2, 1)
    return jnp.tanh(h[0] * h[1]) @ (p['d'] + p['e']) + jnp.tanh(x @ p['a']) @ (2. * jnp.ones((4, 1)) * p['f'])
  x, z = jnp.asarray(rng.normal(size=(2, 4)), jnp.float32), jnp.asarray(rng.random(8), jnp.float32)
  found = graph.channels(fn, params, x)
  assert found.size == 8
  gated = fn(graph.gate(found, params, z), x)

  def by_hand(p, x):
    hidden = z[:4] * jnp.tanh(x @ p['a'])
    h = jnp.split(hidden @ jnp.concatenate([p['b'], p['c']], 1), 2, 1)
    return (z[4:] * jnp.tanh(h[0] * h[1])) @ (p['d'] + p['e']) + hidden @ (2. * p['f'])
  np.testing.assert_allclose(gated, by_hand(params, x), rtol=1e-5)


@pytest.mark.parametrize('entry', [0, 1])
def test_an_operator_that_is_not_chosen_is_gone_from_a_scan(entry):
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  params = {'in': draw(3, 6), 'out': draw(6, 2), 'layers': {
      'a': draw(4, 6, 6), 'b': draw(4, 6, 6), 'choice': jnp.full((4, 2), .5)}}
  x = draw(2, 3)

  def fn(p, x):
    body = lambda h, w: (h + w['choice'][0] * jax.nn.relu(h @ w['a']) + w['choice'][1] * jnp.tanh(h @ w['b']), h.sum())
    return jax.lax.scan(body, x @ p['in'], p['layers'])[0] @ p['out']
  found = graph.channels(fn, params, x)
  assert (found.size, found.choices) == (6, {'layers/choice': 2})
  keep = np.array([True, True, False, True, False, True])
  small, less = graph.shrink(fn, params, keep, x, choose={'layers/choice': entry})
  assert jax.tree.map(jnp.shape, less['layers']) == {
      'a': None if entry else (4, 4, 4), 'b': (4, 4, 4) if entry else None, 'choice': None}
  chosen = params | {'layers': params['layers'] | {'choice': jnp.tile(jnp.eye(2)[entry], (4, 1))}}
  np.testing.assert_allclose(small(less, x), fn(graph.mask(found, chosen, keep), x), rtol=1e-5)


CHOSEN = ({'a1': (3, 5), 'a2': (5, 4), 'd': (4, 2)}, {'b': (4, 4), 'd': (4, 2)}, {'d': (4, 2)})


@pytest.mark.parametrize('entry', range(3))
def test_an_operator_that_is_not_chosen_is_gone(entry):
  def fn(p, x):
    c = p['mix']['choice']
    return (c[0] * (jax.nn.relu(x @ p['a1']) @ p['a2']) + c[1] * jnp.tanh(x @ p['b']) + c[2] * x) @ p['d']

  rng = np.random.default_rng(0)
  params = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in
            {'a1': (4, 5), 'a2': (5, 4), 'b': (4, 4), 'd': (4, 2)}.items()} | {'mix': {'choice': jnp.ones(3) / 3}}
  x = jnp.asarray(rng.normal(size=(2, 4)), jnp.float32)
  found = graph.channels(fn, params, x)
  assert found.choices == {'mix/choice': 3}
  small, less = graph.shrink(fn, params, np.ones(found.size, bool), x, choose={'mix/choice': entry})
  assert set(tree.leaves(less)) == set(CHOSEN[entry])
  one_hot = params | {'mix': {'choice': jnp.eye(3)[entry]}}
  np.testing.assert_allclose(small(less, x), fn(one_hot, x), rtol=1e-6)
  names = [eqn.name for eqn in graph.trace(small, less, x).eqns]
  assert names.count('dot_general') == len(CHOSEN[entry]) and 'mul' not in names
  rows = {row.path: row.guards for row in profile_of(fn, params, x).rows}
  assert rows == {'a1': (('mix/choice', 0),), 'a2': (('mix/choice', 0),), 'b': (('mix/choice', 1),), 'd': ()}


ERRORS = {
    'length': (dict(keep=np.ones(3, bool)), r'keep mask of shape \(3,\), wanted \(4,\)'),
    'empty': (dict(keep=np.zeros(4, bool)), "empties an axis of 'a' .*keep at least one"),
    'choice': (dict(keep=np.ones(4, bool), choose={'b': 0}), r"choose\['b'\] = 0, wanted an entry of one of")}


@pytest.mark.parametrize('name', ERRORS)
def test_errors_of_shrink(name):
  arguments, text = ERRORS[name]
  params = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}
  with pytest.raises(EffjaxError, match=text):
    graph.shrink(lambda p, x: x @ p['a'] @ p['b'], params, arguments['keep'], jnp.ones((1, 3)),
                 choose=arguments.get('choose'))


@pytest.mark.parametrize('dtype', ['int32', 'complex64'])
def test_parameters_are_floating_point(dtype):
  params = {'a': jnp.ones((3, 4)), 'n': jnp.ones((), dtype)}
  with pytest.raises(EffjaxError, match=f"parameter 'n' has dtype {dtype}, wanted floating point: pass other state"):
    graph.channels(lambda p, x: x @ p['a'], params, jnp.ones((1, 3)))


def test_parameters_that_are_not_used():
  a = jnp.ones((3, 4))
  with pytest.raises(EffjaxError, match=r"reads none of its 1 parameters \('w' ...\): give the parameters as its first"):
    graph.channels(lambda p, x: x @ a, {'w': a}, jnp.ones((1, 3)))


def test_an_unchosen_operator_must_be_summed():
  def fn(p, x):
    return jnp.concatenate([p['choice'][0] * x, p['choice'][1] * (x @ p['a'])], -1)
  params = {'a': jnp.ones((3, 3)), 'choice': jnp.ones(2)}

  def shrunk():
    small, less = graph.shrink(fn, params, np.ones(0, bool), jnp.ones((1, 3)), choose={'choice': 0})
    return small(less, jnp.ones((1, 3)))

  with pytest.raises(EffjaxError, match="reaches 'concatenate' .* must be summed"):
    shrunk()


@pytest.mark.parametrize('entry', [0, 1])
def test_a_chosen_entry_that_multiplies_a_constant_becomes_one(entry):
  masks = [np.array([1, 1, 0], np.float32), np.ones(3, np.float32)]
  params = {'a': jnp.ones((2, 3)), 'b': jnp.ones((3, 1)), 'choice': jnp.array([.3, .7])}

  def fn(p, x):
    return ((x @ p['a']) * (p['choice'][0] * masks[0] + p['choice'][1] * masks[1])[None]) @ p['b']
  x = jnp.ones((1, 2))
  keep = np.ones(graph.channels(fn, params, x).size, bool)
  small, left = graph.shrink(fn, params, keep, x, choose={'choice': entry})
  one_hot = params | {'choice': jnp.eye(2)[entry]}
  assert left['choice'] is None
  np.testing.assert_array_equal(small(left, x), fn(one_hot, x))
