"""One convolution instead of a sum of them: against the definition, in float64."""
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import cost, graph, tree
from effjax.errors import EffjaxError
from effjax.reparam import Fact, at
from effjax.search.choice import Choice
from effjax.search.encoding import space_of
from effjax.search.merged import MergedConv
from effjax.search.softmax import softmax

KEY = jax.random.key(0)
KERNELS = {'k1': (1, 1), 'k3': (3, 1), 'k5': (5, 1), 'k3_d2': (3, 2), 'k3_d3': (3, 3)}
SUMS = {  # arguments of MergedConv, height and width of x
    'sizes': (dict(operators=('k3', 'k5', 'k1')), (6, 5)),
    'all': (dict(operators=('k3', 'none', 'k5', 'k3_d3', 'skip', 'k3_d2')), (7, 6)),
    'depthwise': (dict(operators=('k3', 'k5', 'skip'), groups=4), (6, 5)),
    'groups': (dict(operators=('k5', 'skip', 'k3_d2'), groups=2), (5, 5)),
    'strides, even': (dict(operators=('k1', 'k3', 'k5', 'k3_d2', 'none'), strides=2), (6, 8)),
    'strides, odd': (dict(operators=('k1', 'k3', 'k5', 'k3_d2'), strides=2), (7, 5)),
    'symmetric': (dict(operators=('k1', 'k3', 'k5', 'k3_d2'), strides=2, padding='symmetric'), (6, 7)),
    'shared': (dict(operators=('k3', 'k5', 'k1'), shared=True), (6, 5)),
    'shared, strides': (dict(operators=('k1', 'k3_d2', 'k5'), shared=True, strides=2, groups=2), (6, 5))}


def kernel_of(params, op):
  if 'shared' not in params:
    return np.asarray(params[op]['kernel'])
  w, size = np.asarray(params['shared']['kernel']), KERNELS[op][0]
  start = (len(w) - size) // 2
  return w[start:start + size, start:start + size]


def convolution(x, w, dilation, strides, groups, symmetric):
  """By its definition: for each output the sum over taps, zeros outside the image."""
  n, *image, cin = x.shape
  extent = (len(w) - 1) * dilation + 1
  out = [-(-m // strides) for m in image]
  total = [max((o - 1) * strides + extent - m, 0) for o, m in zip(out, image)]
  before = [(extent - 1) // 2] * 2 if symmetric else [t // 2 for t in total]
  y = np.zeros((n, *out, w.shape[-1]))
  per = w.shape[-1] // groups
  for i, j, a, b in itertools.product(*map(range, out), range(len(w)), range(len(w))):
    u, v = strides * i + dilation * a - before[0], strides * j + dilation * b - before[1]
    if 0 <= u < image[0] and 0 <= v < image[1]:
      for c in range(w.shape[-1]):
        first = c // per * (cin // groups)
        y[:, i, j, c] += x[:, u, v, first:first + cin // groups] @ w[a, b, :, c]
  return y


def reference(params, x, operators, strides=1, groups=1, shared=False, padding='SAME'):
  conv = lambda op: convolution(x, kernel_of(params, op), KERNELS[op][1], strides, groups, padding == 'symmetric')
  terms = {op: x if op == 'skip' else 0. if op == 'none' else conv(op) for op in operators}
  return sum(p * terms[op] for p, op in zip(np.asarray(params['choice']), operators, strict=True))


def drawn(params, dtype=jnp.float64):
  """The same structure with normal entries, the choice too."""
  return tree.map_at(lambda path, a: jax.random.normal(tree.fold(KEY, path), a.shape, dtype), params, tree.leaves(params))


@pytest.mark.parametrize('name', SUMS)
def test_merged_and_apart_are_the_sum_by_its_definition(name):
  how, image = SUMS[name]
  with jax.enable_x64(True):
    x = jax.random.normal(KEY, (2, *image, 4), jnp.float64)
    net = MergedConv(4, **how)
    params = drawn(jax.eval_shape(lambda: net.init(KEY, jnp.float32(x), False))['params'])
    want = reference(params, np.asarray(x), **how)
    for merged in (True, False):
      got = jax.jit(lambda net: net.apply({'params': params}, x, False), static_argnums=0)(net.clone(merged=merged))
      np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_the_convolutions_apart():
  with jax.enable_x64(True):
    x = jax.random.normal(KEY, (2, 6, 5, 4), jnp.float64)
    net = MergedConv(4, ('k3', 'k5', 'k3_d2', 'skip', 'none'))
    params = drawn(jax.eval_shape(lambda: net.init(KEY, jnp.float32(x), False))['params'])

    def gradients(merged):
      loss = lambda params, x: jnp.sum(jnp.sin(net.clone(merged=merged).apply({'params': params}, x, True)))
      return jax.jit(jax.grad(loss, (0, 1)))(params, x)

    merged, apart = gradients(True), gradients(False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), merged, apart)
    choice = merged[0]['choice']
    assert choice[-1] == 0. and (choice[:-1] != 0.).all()


def test_one_convolution_runs():
  net, x = MergedConv(4, ('k3', 'k5', 'k3_d2')), jnp.ones((1, 6, 6, 4))
  params = jax.eval_shape(lambda: net.init(KEY, x, False))['params']
  text = lambda merged: str(jax.make_jaxpr(lambda p: net.clone(merged=merged).apply({'params': p}, x, False))(params))
  assert text(True).count('conv_general_dilated[') == 1
  assert text(False).count('conv_general_dilated[') == 3


def test_merged_takes_the_memory_of_one_convolution():
  """The images are what counts: apart, each convolution's is multiplied by its entry of p, whose gradient needs it."""
  x = jnp.ones((8, 32, 32, 8))

  def bytes_of(*operators, merged=True):
    net = MergedConv(8, operators, merged=merged)
    params = jax.eval_shape(lambda: net.init(KEY, x, False))['params']
    loss = lambda params: jnp.sum(jnp.sin(net.apply({'params': params}, x, True)))
    return jax.jit(jax.grad(loss)).lower(params).compile().memory_analysis().temp_size_in_bytes

  five = 'k1', 'k3', 'k5', 'k3_d2', 'k5_d2'
  one = bytes_of('k3')
  assert bytes_of(*five) < 1.3 * one < .6 * bytes_of(*five, merged=False)


def test_vmap_over_choices_and_bfloat16():
  x = jax.random.normal(KEY, (2, 6, 6, 4))
  net = MergedConv(4, ('k3', 'k5', 'skip'), dtype=jnp.bfloat16)
  params = drawn(jax.eval_shape(lambda: net.init(KEY, x, False))['params'], jnp.float32)
  ps = jax.random.normal(KEY, (3, 3))
  run = lambda net: jax.vmap(lambda p: net.apply({'params': params | {'choice': p}}, x, False))(ps)
  got, want = jax.jit(lambda: run(net))(), jax.jit(lambda: run(net.clone(dtype=None, merged=False)))()
  assert got.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.float32(got), want, rtol=.03, atol=.2)
  half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
  assert net.clone(dtype=None).apply({'params': half}, x.astype(jnp.bfloat16), False).dtype == jnp.bfloat16


def test_the_start_has_the_variance_of_a_convolution():
  """Of each kernel: 1 / (size^2 cin), and the choice is even."""
  params = jax.jit(lambda: MergedConv(64, ('k3', 'k5', 'skip')).init(KEY, jnp.ones((1, 8, 8, 64)), False))()['params']
  np.testing.assert_array_equal(params['choice'], np.full(3, 1 / 3, np.float32))
  for op, size in (('k3', 3), ('k5', 5)):
    np.testing.assert_allclose(np.var(params[op]['kernel']) * size**2 * 64, 1., rtol=.03)


@functools.cache
def costs(shared):
  net, x = MergedConv(4, ('k3', 'k5', 'skip', 'none', 'k3_d2'), shared=shared, merged=False), jnp.ones((1, 8, 8, 4))
  params = jax.jit(lambda: net.init(KEY, x, False))()['params']
  return graph.profile(lambda params, x: net.apply({'params': params}, x, False), params, x)


@pytest.mark.parametrize('shared', [False, True])
def test_expected_costs_are_the_mean_over_the_kernels(shared):
  p, weights = np.array([.1, .25, .3, .15, .2], np.float32), np.array([9, 25, 0, 0, 9]) * 16
  facts = {'choice': Fact(choice=jnp.asarray(p))}
  np.testing.assert_allclose(cost.macs(costs(shared), facts), 64 * p @ weights, rtol=1e-6)
  for i, one_hot in enumerate(jnp.eye(5)):
    assert float(cost.macs(costs(shared), {'choice': Fact(choice=one_hot)})) == 64 * weights[i]
  # A shared kernel is one leaf, which stays whatever is chosen: the docstring says so.
  stored = 25 * 16 if shared else p @ weights
  np.testing.assert_allclose(cost.params(costs(shared), facts), stored, rtol=1e-6)


def test_the_merged_form_is_profiled_as_what_runs():
  net, x = MergedConv(4, ('k3', 'k5', 'skip')), jnp.ones((1, 8, 8, 4))
  params = jax.jit(lambda: net.init(KEY, x, False))()['params']
  found = graph.profile(lambda params, x: net.apply({'params': params}, x, False), params, x)
  for one_hot in jnp.eye(3):
    assert float(cost.macs(found, {'choice': Fact(choice=one_hot)})) == 64 * 25 * 16


def test_it_is_searched_as_a_choice_and_may_stand_in_one():
  x = jnp.ones((1, 6, 6, 4))
  inner = lambda: MergedConv(4, ('k3', 'k5'), name='kernels')
  net = Choice((inner(), MergedConv(4, ('k1', 'none'), name='small')), name='block')
  assert space_of(inner(), x, False) == {'choice': ('k3', 'k5')}
  assert space_of(net, x, False) == {'choice': ('kernels', 'small'), 'kernels/choice': ('k3', 'k5'),
                                     'small/choice': ('k1', 'none')}
  variables = jax.jit(lambda: net.init(KEY, x, False))()
  reparam = at('.*choice', softmax())
  slots = reparam.init(KEY, variables['params'])
  deployed = reparam.apply(*slots, None)
  assert {path: leaf.tolist() for path, leaf in tree.leaves(deployed).items() if path.endswith('choice')} == {
      'choice': [1., 0.], 'kernels/choice': [1., 0.], 'small/choice': [1., 0.]}


ERRORS = {
    'Decision (top): no candidates: give it the name of an operator': dict(operators=()),
    "MergedConv (top): unknown operator 'k4': known are 'k<size>' such as k3 with an odd size, 'k<size>_d<dilation>' such "
    "as k3_d2, 'skip' and 'none'": dict(operators=('k3', 'k4')),
    'MergedConv (top): skip goes from 4 to 4 channels with strides 2, wanted the same channels and strides 1: leave it out':
        dict(operators=('k3', 'skip'), strides=2),
    'MergedConv (top): skip goes from 4 to 8 channels with strides 1, wanted the same channels and strides 1: leave it out':
        dict(operators=('k3', 'skip'), features=8),
    'MergedConv (top): 3 groups do not divide 4 input and 4 output channels: choose another width or other groups':
        dict(operators=('k3',), groups=3),
    "MergedConv (top): candidate 'k5' gives (4, 4) entries, candidate 'k3' gives (6, 6): all candidates must give one "
    "shape: choose padding 'SAME' or 'symmetric'": dict(operators=('k3', 'k5'), padding='VALID')}


@pytest.mark.parametrize('merged', [False, True])
@pytest.mark.parametrize('text', ERRORS)
def test_errors(text, merged):
  with pytest.raises(EffjaxError) as error:
    MergedConv(**{'features': 4, **ERRORS[text]}, merged=merged).init(KEY, jnp.ones((1, 8, 8, 4)), False)
  assert str(error.value) == text
