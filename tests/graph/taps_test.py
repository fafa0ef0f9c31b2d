import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.graph.taps import collect, insert, taps


class Residual(nn.Module):
  """conv-BN-relu, a residual block, pooling, a mean, a dense layer."""

  @nn.compact
  def __call__(self, x, train=False):
    norm = lambda: nn.BatchNorm(use_running_average=not train)
    x = nn.relu(norm()(nn.Conv(4, (3, 3))(x)))
    y = nn.relu6(norm()(nn.Conv(4, (3, 3))(x)))
    y = norm()(nn.Conv(4, (1, 1))(y))
    x = nn.max_pool(nn.relu(x + y), (2, 2), (2, 2))
    return nn.Dense(3)(x.mean((1, 2)))


NAMES = ['input', 'Conv_0', 'Conv_1', 'Conv_2', 'Conv_2/add', 'Conv_2/add/mean', 'Dense_0']
KINDS = ['input', 'conv', 'conv', 'conv', 'add', 'mean', 'dot']


@pytest.fixture(scope='module')
def model():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), jnp.float32)
  return Residual(), jax.jit(Residual().init)(jax.random.key(0), x), x


@pytest.mark.parametrize('train', [False, True])
def test_places_and_names_are_those_of_the_kernels_in_training_and_inference(model, train):
  module, variables, x = model
  found = taps(lambda v, x: module.apply(v, x, train, mutable=['batch_stats']), variables, x)
  assert [tap.name for tap in found] == NAMES
  assert [tap.kind for tap in found] == KINDS
  assert [tap.range for tap in found] == NAMES
  assert [tap.shape for tap in found][-3:] == [(4, 8, 8, 4), (4, 4), (4, 3)]


def test_collect_gives_what_flax_captures(model):
  module, variables, x = model
  captured = lambda m, _: isinstance(m, nn.BatchNorm | nn.Dense)
  out, state = module.apply(variables, x, capture_intermediates=captured, mutable=['intermediates'])
  mine, found = jax.jit(collect(module.apply, ['Conv_0', 'Conv_2', 'Dense_0']))(variables, x)
  inner = {name: value['__call__'][0] for name, value in state['intermediates'].items()}
  np.testing.assert_allclose(mine, out, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(found['Conv_0'], nn.relu(inner['BatchNorm_0']), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(found['Conv_2'], inner['BatchNorm_2'], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(found['Dense_0'], out, rtol=1e-5, atol=1e-6)


def test_insert_replaces_for_every_reader_and_keeps_derivatives(model):
  module, variables, x = model
  inserted = insert(module.apply, {'Conv_0': lambda x: x * x, 'Dense_0': lambda x: 2 * x})
  np.testing.assert_array_equal(insert(module.apply, {})(variables, x), module.apply(variables, x))
  loss = jax.jit(jax.value_and_grad(lambda v: inserted(v, x).sum()))
  f, df = loss(variables)
  step = jax.tree.map(lambda w: 1e-3 * np.sign(w), variables)
  moved = jax.tree.map(np.add, variables, step)
  expected = sum(jax.tree.leaves(jax.tree.map(np.vdot, df, step)))
  assert float(loss(moved)[0] - f) == pytest.approx(float(expected), rel=.1)


def test_insert_under_jit_vmap_and_grad(model):
  module, variables, x = model
  inserted = insert(module.apply, {'Conv_1': jnp.tanh})
  expected = inserted(variables, x)
  np.testing.assert_allclose(jax.jit(inserted)(variables, x), expected, rtol=1e-5, atol=1e-6)
  mapped = jax.vmap(inserted, (None, 0))(variables, x[:, None])[:, 0]
  np.testing.assert_allclose(mapped, expected, rtol=1e-5, atol=1e-6)


def test_concatenated_tensors_share_a_range():
  def fn(p, x):
    y = jnp.concatenate([jax.nn.relu(x @ p['a']['w']), x @ p['b']['w']], -1)
    return jnp.concatenate([y, y @ p['c']['w']], -1) @ p['d']['w']

  shapes = {'a': (3, 2), 'b': (3, 2), 'c': (4, 2), 'd': (6, 2)}
  found = taps(fn, {name: {'w': jnp.ones(shape)} for name, shape in shapes.items()}, jnp.ones((1, 3)))
  assert {tap.name: tap.range for tap in found} == {
      'input': 'input', 'a': 'c/concat', 'b': 'c/concat', 'b/concat': 'c/concat', 'c': 'c/concat',
      'c/concat': 'c/concat', 'd': 'd'}


def test_soft_choice_is_inside_the_kernels():
  def fn(p, x):
    return p['p'][0] * (x @ p['a']['w']) + p['p'][1] * x

  found = taps(fn, {'a': {'w': jnp.ones((2, 2))}, 'p': jnp.ones(2)}, jnp.ones((5, 2)))
  assert [(tap.name, tap.kind) for tap in found] == [('input', 'input'), ('a', 'dot'), ('a/add', 'add')]


def test_elementwise_functions_are_stored_where_a_kernel_reads_them():
  fn = lambda p, x: jax.nn.sigmoid(x @ p['a']['w']) @ p['b']['w']
  found = taps(fn, {'a': {'w': jnp.ones((2, 2))}, 'b': {'w': jnp.ones((2, 2))}}, jnp.ones((1, 2)))
  assert [(tap.name, tap.kind) for tap in found] == [
      ('input', 'input'), ('a', 'dot'), ('a/logistic', 'logistic'), ('b', 'dot')]


def test_a_weight_used_twice_has_two_taps():
  found = taps(lambda p, x: jax.nn.relu(x @ p['w']) @ p['w'], {'w': jnp.ones((2, 2))}, jnp.ones((1, 2)))
  assert [tap.name for tap in found] == ['input', 'w', 'w_1']


def test_unknown_tap_is_named(model):
  module, variables, x = model
  with pytest.raises(EffjaxError, match=r"tap 'Conv_9' is none of the 7 taps .* choose from \['Conv_0'"):
    collect(module.apply, ['Conv_9'])(variables, x)


def test_a_loss_has_no_taps(model):
  module, variables, x = model
  with pytest.raises(EffjaxError, match='no output of the function differs between the examples'):
    taps(lambda v, x: module.apply(v, x).mean(), variables, x)


def stacked():
  """Three residual layers in a `scan` under remat, a recurrence, and the same layers written out."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / 2, jnp.float32)
  params = {'enter': {'w': draw(3, 4)}, 'stack': {'up': {'w': draw(3, 4, 6)}, 'down': {'w': draw(3, 6, 4)}}}

  def layer(h, p):
    return h + jax.nn.relu(h @ p['up']['w']) @ p['down']['w']

  def scanned(p, x):
    return jax.lax.scan(lambda h, q: (jax.checkpoint(layer)(h, q), None), x @ p['enter']['w'], p['stack'])[0]

  def written_out(p, x):
    h = x @ p['enter']['w']
    for i in range(3):
      h = layer(h, jax.tree.map(lambda w: w[i], p['stack']))  # noqa: B023
    return h
  return scanned, written_out, params, draw(2, 3)


def test_taps_within_scan_and_remat():
  scanned, _, params, x = stacked()
  found = taps(scanned, params, x)
  assert [(tap.name, tap.kind, tap.layers, tap.range) for tap in found] == [
      ('input', 'input', (), 'input'), ('enter', 'dot', (), 'enter'), ('stack/up', 'dot', (3,), 'stack/up'),
      ('stack/down', 'dot', (3,), 'stack/down'), ('stack/down/add', 'add', (3,), 'enter')]


def test_what_is_collected_within_scan_is_stacked():
  scanned, written_out, params, x = stacked()
  out, found = jax.jit(collect(scanned, ['stack/up', 'stack/down/add']))(params, x)
  _, plain = collect(written_out, ['stack/up', 'stack/up_1', 'stack/up_2', 'stack/down/add_2'])(params, x)
  np.testing.assert_allclose(found['stack/up'], [plain[n] for n in ('stack/up', 'stack/up_1', 'stack/up_2')], rtol=1e-5)
  np.testing.assert_allclose(found['stack/down/add'][2], plain['stack/down/add_2'], rtol=1e-5)
  np.testing.assert_allclose(out, found['stack/down/add'][2], rtol=1e-6)


def test_what_is_inserted_within_scan_acts_in_every_iteration():
  scanned, written_out, params, x = stacked()
  got = insert(scanned, {'stack/up': jnp.tanh})(params, x)
  names = ('stack/up', 'stack/up_1', 'stack/up_2')
  np.testing.assert_allclose(got, insert(written_out, dict.fromkeys(names, jnp.tanh))(params, x), rtol=1e-5)
  carried = insert(scanned, {'enter': lambda x: 2. * x})(params, x)  # the range of what is carried: at all its taps
  ends = ('enter', 'stack/down/add', 'stack/down/add_1', 'stack/down/add_2')
  np.testing.assert_allclose(carried, insert(written_out, dict.fromkeys(ends, lambda x: 2. * x))(params, x), rtol=1e-5)


def placed(fn, p, x):
  return [(tap.name, tap.kind, tap.range, tap.bounds, tap.positive) for tap in taps(fn, p, x)]


def test_functions_have_a_range_of_their_own_and_clamps_fix_theirs():
  def fn(p, x):
    x = jax.nn.gelu(x @ p['a']['w'])
    gate = jnp.clip(x @ p['b']['w'] + 3., 0., 6.) / 6.
    return jax.nn.softmax((gate * x) * .5)

  weights = {name: {'w': jnp.eye(3)} for name in 'ab'}
  assert placed(fn, weights, jnp.ones((2, 3))) == [
      ('input', 'input', 'input', None, False), ('a', 'dot', 'a', None, False), ('a/gelu', 'gelu', 'a/gelu', None, False),
      ('b', 'dot', 'b', (0., 1.), False), ('b/mul', 'mul', 'b/mul', None, False),
      ('b/mul/softmax', 'softmax', 'b/mul/softmax', None, False)]


def test_what_a_root_reads_is_positive_and_a_small_constant_before_it_is_no_sum():
  def fn(p, x):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5)
  assert [(tap.name, tap.positive) for tap in taps(fn, {}, jnp.ones((2, 3)))] == [
      ('input', False), ('input/mul', False), ('input/mul/mean', True), ('input/mul/mean/rsqrt', False),
      ('input/mul/mean/rsqrt/mul', False)]
  plus_one = lambda p, x: jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1.)
  assert 'input/mul/mean/affine' in {tap.name for tap in taps(plus_one, {}, jnp.ones((2, 3)))}


def test_constants_per_channel_fold_and_others_are_stored():
  table = np.arange(12, dtype=np.float32).reshape(1, 4, 3)

  def fn(p, x):
    x = x * p['scale'] + p['shift']  # one kernel, per channel
    x = x + p['position']
    return x @ p['w'] + table

  p = {'scale': jnp.ones((1, 1, 3)), 'shift': jnp.ones((1, 1, 3)), 'position': jnp.ones((1, 4, 3)), 'w': jnp.eye(3)}
  assert [(tap.name, tap.kind) for tap in taps(fn, p, jnp.ones((2, 4, 3)))] == [
      ('position', 'constant'), ('input', 'input'), ('input/affine', 'affine'), ('input/affine/add', 'add'), ('w', 'dot'),
      ('w/add', 'add'), ('w/constant', 'constant')]
  zero = insert(fn, {'position': jnp.zeros_like, 'w/constant': jnp.zeros_like})(p, jnp.ones((2, 4, 3)))
  np.testing.assert_array_equal(zero, np.full((2, 4, 3), 2.))


def test_what_is_joined_shares_a_range_unless_its_kernel_has_one():
  def fn(p, x):
    y = x @ p['a']['w']
    return jnp.concatenate([y, jax.nn.sigmoid(y), x @ p['b']['w'], jnp.broadcast_to(p['token'], x.shape)], -1)

  p = {'a': {'w': jnp.eye(3)}, 'b': {'w': jnp.eye(3)}, 'token': jnp.ones((1, 3))}
  found = {tap.name: tap.range for tap in taps(fn, p, jnp.ones((2, 3)))}
  joined = found['a/logistic/concat'] if 'a/logistic/concat' in found else found['b/concat']
  assert found['b'] == found['token'] == found['a'] == joined
  assert found['a/logistic'] == 'a/logistic'


def test_averages_are_rounded_to_the_range_of_their_input():
  def fn(p, x):
    y = jax.lax.reduce_window(x, 0., jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID') / 4.
    return jax.image.resize(y, x.shape, 'bilinear')

  x = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 4, 4, 1)), jnp.float32)
  found = taps(fn, 2., x)
  assert [(tap.name, tap.kind, tap.range) for tap in found] == [
      ('input', 'input', 'input'), ('input/average', 'average', 'input'), ('input/average/average', 'average', 'input')]
  scaled = taps(lambda p, x: fn(p, x * p), 2., x)
  assert [tap.name for tap in scaled] == ['input']
  rounded = insert(fn, {'input': lambda x: jnp.round(8. * x) / 8.})(2., x)
  np.testing.assert_array_equal(8 * rounded, np.round(8 * rounded))
