import math

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.graph import known
from effjax.graph.functions import recognised
from effjax.graph.trace import evaluate, trace
from effjax.layers import avg_pool

X = jnp.asarray(3 * np.random.default_rng(0).normal(size=(2, 5, 7)), jnp.float32)
IMAGE = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)), jnp.float32)
MASK = np.tril(np.ones((5, 7), bool))


def by_hand(x):
  e = jnp.exp(x)
  return e / e.sum(-1, keepdims=True)


def safe_by_hand(x):
  e = jnp.exp(x - jax.lax.stop_gradient(x.max(-1, keepdims=True)))
  return e / e.sum(-1, keepdims=True)


ONE = {  # what is one equation afterwards, by its name
    'logistic': [jax.nn.sigmoid, lambda x: 1. / (1. + jnp.exp(-x)), lambda x: .5 * (1. + jnp.tanh(.5 * x))],
    'tanh': [jnp.tanh, lambda x: 2. * jax.nn.sigmoid(2. * x) - 1.],
    'hard_swish': [nn.hard_swish, lambda x: x * jnp.clip(x + 3., 0., 6.) / 6., lambda x: x * nn.hard_sigmoid(x),
                   lambda x: x * (jnp.minimum(jnp.maximum(x + 3., 0.), 6.) * (1 / 6))],
    'gelu': [nn.gelu, lambda x: nn.gelu(x, approximate=False),
             lambda x: .5 * x * (1. + jax.lax.erf(x * (1 / math.sqrt(2))))],
    'leaky_relu': [nn.leaky_relu, lambda x: jnp.where(x > 0, x, .2 * x), lambda x: jnp.maximum(x, .3 * x),
                   hk.LeakyReLU if hasattr(hk, 'LeakyReLU') else nn.leaky_relu],
    'elu': [nn.elu, lambda x: jnp.where(x > 0, x, jnp.exp(x) - 1.)],
    'exp': [jnp.exp], 'log': [jnp.log], 'abs': [jnp.abs],
    'sqrt': [jnp.sqrt, lambda x: x ** .5], 'rsqrt': [jax.lax.rsqrt, lambda x: 1. / jnp.sqrt(x), lambda x: x ** -.5],
    'softmax': [nn.softmax, by_hand, safe_by_hand, lambda x: jnp.exp(nn.log_softmax(x))],
    'log_softmax': [nn.log_softmax, lambda x: x - jax.scipy.special.logsumexp(x, -1, keepdims=True)],
    'argmax': [lambda x: jnp.argmax(x, -1)]}

NOT = {  # near misses, and what only part of is known
    'another hard swish': (lambda x: x * nn.relu6(x + 2.) / 6., []),
    'hard sigmoid': (nn.hard_sigmoid, []), 'relu': (nn.relu, []), 'clip': (lambda x: jnp.clip(x, -2., 2.), []),
    'exp of a clamp': (lambda x: jnp.exp(jnp.minimum(x, 10.)), ['exp']),
    'abs of a clamp': (lambda x: jnp.abs(jnp.clip(x, -500., 500.)), ['abs']),
    'softmax of a clamp': (lambda x: nn.softmax(jnp.clip(x, -5., 5.)), ['softmax']),
    'argmax of a clamp': (lambda x: jnp.argmax(jnp.clip(x, -5., 5.), -1), ['argmax']),
    'variance and epsilon': (lambda x: x.var(-1, keepdims=True) + 1e-5, []),
    'nearly one': (lambda x: x * 1.000001, []), 'abs and epsilon': (lambda x: jnp.abs(x) + 1e-6, ['abs']),
    'elu of another alpha': (lambda x: nn.elu(x, .99), []),
    'affine': (lambda x: 2. * x + 1., []), 'almost nothing': (lambda x: x * 1.00001, []), 'square': (lambda x: x * x, []), 'mish': (lambda x: x * jnp.tanh(nn.softplus(x)), ['tanh']),
    'another gelu': (lambda x: .5 * x * (1. + jnp.tanh(.9 * (x + .044715 * x ** 3))), ['tanh']),
    'silu': (nn.silu, ['logistic']), 'half a tanh': (lambda x: .5 * jnp.tanh(x), ['tanh']),
    'softmax of scaled scores': (lambda x: nn.softmax(.25 * x), ['softmax']),
    'softmax under a mask': (lambda x: nn.softmax(jnp.where(MASK, x, -1e9)), ['softmax']),
    'softmax over other axes': (lambda x: nn.softmax(x, axis=1), ['exp']),
    'normalisation': (lambda x: x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6), ['rsqrt'])}


def names(program):
  return [eqn.name for eqn in program.eqns]


def functions(program):
  return [eqn.name for eqn in program.eqns if eqn.name in ONE and eqn.body is not None]


@pytest.mark.parametrize(('name', 'f'), [(name, f) for name, fs in ONE.items() for f in fs])
def test_one_equation_whatever_the_spelling(name, f):
  program = recognised(trace(lambda p, x: f(x), {}, X))
  assert names(program) == [name]


@pytest.mark.parametrize('case', NOT)
def test_what_is_not_the_function_stays(case):
  f, inside = NOT[case]
  assert functions(recognised(trace(lambda p, x: f(x), {}, X))) == inside


def test_settings_tell_the_kinds_apart():
  settings = lambda f: recognised(trace(lambda p, x: f(x), {}, X)).eqns[0].params
  assert [settings(f)['approximate'] for f in ONE['gelu']] == [True, False, False]
  assert [round(settings(f)['alpha'], 6) for f in ONE['leaky_relu'][:3]] == [.01, .2, .3]


@pytest.mark.parametrize('f', [f for fs in ONE.values() for f in fs][:-1])
def test_values_and_derivatives_are_those_of_the_equations(f):
  plain = trace(lambda p, x: f(x), {}, X)
  known = recognised(plain)
  run = lambda program: lambda x: evaluate(program, [x])[0]
  derivatives = lambda f: jax.jit(lambda x: (f(x), jax.grad(lambda x: f(x).sum())(x), *jax.jvp(f, (x,), (x,))))
  x = jnp.abs(X) + .1
  for got, wanted in zip(derivatives(run(known))(x), derivatives(run(plain))(x), strict=True):
    np.testing.assert_array_equal(got, wanted)
  assert names(recognised(known)) == names(known)


ROW = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1000)), jnp.bfloat16)
SHORT = [  # in bfloat16, whose constants are a part in 500 away
    (nn.hard_swish, ['hard_swish']), (nn.gelu, ['gelu']), (nn.softmax, ['softmax']), (nn.sigmoid, ['logistic']),
    (lambda x: jnp.argmax(x, -1), ['argmax']), (lambda x: nn.softmax(x * jnp.bfloat16(.25)), ['softmax']),
    (lambda x: jnp.argmax(x * x, -1), ['argmax']), (lambda x: x * nn.sigmoid(jnp.bfloat16(1.702) * x), ['logistic']),
    (lambda x: nn.elu(x, .99), []), (lambda x: jnp.tanh(x) * jnp.bfloat16(1.0078125), ['tanh'])]


@pytest.mark.parametrize('case', range(len(SHORT)))
def test_bfloat16(case):
  f, wanted = SHORT[case]
  program = recognised(trace(lambda p, x: f(x), {}, ROW))
  assert functions(program) == wanted
  assert len(program.eqns) == 1 or case >= 5


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize('approximate', [True, False])
def test_both_kinds_of_gelu_in_any_precision(dtype, approximate):
  eqn, = recognised(trace(lambda p, x: nn.gelu(x, approximate=approximate), {}, X.astype(dtype))).eqns
  assert (eqn.name, eqn.params) == ('gelu', {'approximate': approximate})


def test_what_is_made_of_parameters_alone_stays():
  f = lambda p, x: nn.softmax(p['gate']) * (x / jnp.sqrt(p['variance'] + 1e-5))
  assert functions(recognised(trace(f, {'gate': jnp.ones((1, 1, 7)), 'variance': jnp.ones((1, 1, 7))}, X))) == []


def test_a_parameter_that_happens_to_fit_is_none():
  f = lambda p, x: jnp.where(x > 0, x, p * x) + .5 * x * (1. + jnp.tanh(p * (x + .044715 * x ** 3)))
  assert functions(recognised(trace(f, jnp.float32(math.sqrt(2 / math.pi)), X))) == ['tanh']


RESIZED = {
    'nearest': lambda x: jax.image.resize(x, (2, 8, 12, 3), 'nearest'),
    'repeat': lambda x: jnp.repeat(jnp.repeat(x, 2, 1), 2, 2),
    'broadcast': lambda x: jnp.broadcast_to(x[:, :, None, :, None], (2, 4, 2, 6, 2, 3)).reshape(2, 8, 12, 3),
    'one and a half': lambda x: jax.image.resize(x, (2, 6, 9, 3), 'nearest'),
    'bilinear': lambda x: jax.image.resize(x, (2, 8, 12, 3), 'bilinear'),
    'bilinear, uneven': lambda x: jax.image.resize(x, (2, 7, 13, 3), 'linear')}


@pytest.mark.parametrize('case', RESIZED)
def test_resizing(case):
  plain = trace(lambda p, x: RESIZED[case](x), {}, IMAGE)
  known = recognised(plain)
  kind = 'bilinear' if 'bilinear' in case else 'nearest'
  assert names(known) == [f'resize_{kind}']
  assert known.eqns[0].params == {'size': plain.avals[plain.outputs[0]].shape[1:3], 'align_corners': False,
                                  'half_pixel': True}
  run = lambda program: jax.jit(lambda x: evaluate(program, [x])[0])(IMAGE)
  np.testing.assert_allclose(run(known), run(plain), rtol=1e-6)


# Pixels that TFLite's RESIZE_NEAREST_NEIGHBOR reads: (before, after, aligned corners, half pixels), by LiteRT 2.3.0.
NEAREST = {(2, 3, True, False): [0, 1, 1], (3, 5, True, False): [0, 1, 1, 2, 2], (4, 3, True, False): [0, 2, 3],
           (4, 3, False, False): [0, 1, 2], (4, 3, False, True): [0, 2, 3], (5, 2, False, False): [0, 2],
           (2, 41, False, True): [0] * 21 + [1] * 20, (2, 82, False, False): [0] * 41 + [1] * 41}


@pytest.mark.parametrize('case', NEAREST)
def test_nearest_pixels_are_those_of_the_device(case):
  before, after, aligned, half = case
  x = jnp.asarray(np.random.default_rng(0).normal(size=(1, before, before, 2)), jnp.float32)
  at = np.array(NEAREST[case])
  eqn = recognised(trace(lambda p, x: x[:, at][:, :, at], {}, x)).eqns[-1]
  assert eqn.name == 'resize_nearest'
  wanted, = (f for name, settings, f in known.resizes(x.shape, (1, after, after, 2))
             if (name, settings) == (eqn.name, eqn.params))
  np.testing.assert_array_equal(wanted(np.asarray(x)), x[:, at][:, :, at])


@pytest.mark.parametrize(('aligned', 'half'), [(True, False), (False, False), (False, True)])
def test_bilinear_of_each_grid(aligned, half):
  def row(i, before, after):  # of the matrix that interpolates one axis, in real numbers
    at = (i + .5) * before / after - .5 if half else i * (before - 1) / (after - 1) if aligned else i * before / after
    at = min(max(at, 0), before - 1)
    return [max(0., 1 - abs(at - j)) for j in range(before)]

  rows, columns = ([row(i, n, m) for i in range(m)] for n, m in ((4, 7), (6, 11)))
  rows, columns = np.array(rows, np.float32), np.array(columns, np.float32)
  program = recognised(trace(lambda p, x: jnp.einsum('Hh,Ww,nhwc->nHWc', rows, columns, x), {}, IMAGE))
  assert names(program) == ['resize_bilinear']
  assert program.eqns[0].params == {'size': (7, 11), 'align_corners': aligned, 'half_pixel': half}


def test_halves_to_even_are_not_the_pixels_of_the_device():
  program = recognised(trace(lambda p, x: x[:, np.rint(np.arange(7) / 2).astype(int)], {}, IMAGE))
  assert not any(name.startswith('resize_') for name in names(program))


def test_other_resizings_stay():
  for f in (lambda x: jax.image.resize(x, (2, 2, 3, 3), 'bilinear'), lambda x: jax.image.resize(x, (2, 8, 12, 3), 'cubic'),
            lambda x: x.reshape(2, 6, 4, 3), lambda x: x.transpose(0, 2, 1, 3)):
    assert not any(name.startswith('resize_') for name in names(recognised(trace(lambda p, x: f(x), {}, IMAGE))))  # noqa: B023


def test_in_a_network_and_a_loop():
  def block(p, x):
    x = x @ p['w'] + p['b']
    return x + nn.gelu(x) * nn.softmax(x * p['t'])

  params = {'w': jnp.ones((7, 7)) / 7, 'b': jnp.ones((1, 1, 7)), 't': jnp.float32(2.)}
  assert functions(recognised(trace(block, params, X))) == ['gelu', 'softmax']
  loop = lambda p, x: jax.lax.scan(lambda x, w: (nn.hard_swish(x @ w), None), x, p)[0]
  program = recognised(trace(loop, jnp.ones((3, 7, 7)), X))
  assert [eqn.name for eqn in program.eqns[0].body.eqns] == ['dot_general', 'hard_swish']
  np.testing.assert_array_equal(evaluate(program, [jnp.ones((3, 7, 7)) / 7, X])[0], loop(jnp.ones((3, 7, 7)) / 7, X))


class Mobile(nn.Module):
  """A block of MobileNetV3: hard-swish, squeeze and excite, residual."""

  @nn.compact
  def __call__(self, x):
    norm = lambda x: nn.BatchNorm(use_running_average=True)(x)
    h = nn.hard_swish(norm(nn.Conv(8, (1, 1), use_bias=False)(x)))
    h = nn.hard_swish(norm(nn.Conv(8, (3, 3), feature_group_count=8, use_bias=False)(h)))
    gate = nn.relu(nn.Conv(4, (1, 1))(h.mean((1, 2), keepdims=True)))
    return x + norm(nn.Conv(3, (1, 1), use_bias=False)(h * nn.hard_sigmoid(nn.Conv(8, (1, 1))(gate))))


class Transformer(nn.Module):
  """A block of a ViT."""

  @nn.compact
  def __call__(self, x):
    x = x.reshape(2, 24, 3)
    h = nn.LayerNorm()(x)
    x = x + nn.MultiHeadDotProductAttention(2, qkv_features=4)(h, h)
    return x + nn.Dense(3)(nn.gelu(nn.Dense(8)(nn.LayerNorm()(x))))


@pytest.mark.parametrize(('net', 'wanted'), [
    (Mobile(), ['hard_swish', 'hard_swish']), (Transformer(), ['rsqrt', 'softmax', 'rsqrt', 'gelu'])])
def test_in_the_blocks_of_networks(net, wanted):
  params = jax.jit(net.init)(jax.random.key(0), IMAGE)
  plain = trace(net.apply, params, IMAGE)
  known = recognised(plain)
  assert functions(known) == wanted
  assert names(recognised(known)) == names(known)
  leaves = jax.tree.leaves((params, IMAGE))
  run = lambda program: jax.jit(lambda leaves: evaluate(program, leaves)[0])
  np.testing.assert_array_equal(run(known)(leaves), run(plain)(leaves))
  gradients = lambda program: jax.jit(jax.grad(lambda leaves: (evaluate(program, leaves)[0] ** 2).sum()))(leaves)
  for got, wanted in zip(gradients(known), gradients(plain), strict=True):
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_under_vmap():
  program = recognised(trace(lambda p, x: nn.softmax(nn.gelu(x)), {}, X))
  batch = jnp.stack([X, 2. * X, -X])
  got = jax.jit(jax.vmap(lambda x: evaluate(program, [x])[0]))(batch)
  np.testing.assert_allclose(got, jax.jit(lambda x: nn.softmax(nn.gelu(x)))(batch), rtol=1e-6, atol=1e-7)


def test_constants_that_are_no_numbers_are_no_part_of_a_function():
  """A mean over what is within the image divides by a pool of ones."""
  def fn(p, x):
    return jnp.square(jax.nn.sigmoid(avg_pool(x, 3, 1, 'SAME', count_padding=False)))
  plain = trace(fn, {}, IMAGE)
  known = recognised(plain)
  run = lambda program: jax.jit(lambda x: evaluate(program, [x])[0])(IMAGE)
  np.testing.assert_allclose(run(known), run(plain), rtol=1e-6)
  assert recognised(trace(lambda p, x: jnp.square(avg_pool(x, 3, 1, 'SAME', count_padding=False)), {}, IMAGE))


def test_what_another_equation_reads_is_recognised_too():
  def f(x):
    y = nn.softmax(x)
    return jnp.log(y) + y

  assert sorted(functions(recognised(trace(lambda p, x: f(x), {}, X)))) == ['log_softmax', 'softmax']
