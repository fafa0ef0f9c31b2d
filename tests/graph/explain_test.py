import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from effjax import graph
from effjax.errors import EffjaxError


class Residual(nn.Module):
  head: bool = True

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(4, (3, 3))(x))
    x = x + nn.Conv(4, (3, 3))(x)  # the addition
    x = x.mean((1, 2))
    return nn.Dense(3)(x if self.head else nn.softmax(x))  # the head


@pytest.fixture
def model():
  x = jnp.ones((1, 8, 8, 3))

  def make(**options):
    net = Residual(**options)
    with jax.numpy_rank_promotion('allow'):
      return net.apply, net.init(jax.random.key(0), x), x
  return make


@pytest.fixture(autouse=True)
def _loose():
  with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
    yield


def line_of(comment):
  lines = pathlib.Path(__file__).read_text().splitlines()
  return next(i for i, line in enumerate(lines, 1) if line.endswith('# ' + comment))


def test_a_channel_names_its_leaves_and_the_equations_that_couple_them(model):
  fn, params, x = model()
  found = graph.explain(fn, params, 1, x)
  assert found.channel == 1
  assert found.members == tuple((f'params/{path}', axis, (1,)) for path, axis in [
      ('Conv_0/bias', 0), ('Conv_0/kernel', 3), ('Conv_1/bias', 0), ('Conv_1/kernel', 2), ('Conv_1/kernel', 3),
      ('Dense_0/kernel', 0)])
  step = next(s for s in found.steps if (s.primitive, s.scope) == ('add', 'Residual'))
  assert step.why == 'combined entry by entry'
  assert step.source == f'{__file__}:{line_of("the addition")} (Residual.__call__)'
  assert str(found).startswith('channel 1:\n  params/Conv_0/bias axis 0 entries [1]\n')


def test_a_pinned_entry_names_the_way_to_what_pins_it(model):
  fn, params, x = model(head=False)
  found = graph.explain(fn, params, ('params/Conv_0/kernel', 3, 2), x)
  assert found.channel is None and found.members == (('params/Conv_0/kernel', 3, (2,)),)
  assert (found.steps[-1].primitive, found.steps[-1].why) == ('reduce_max', 'reduce_max sees every entry')
  assert found.steps[-1].source == f'{__file__}:{line_of("the head")} (Residual.__call__)'


@pytest.mark.parametrize(('entry', 'primitive', 'why'), [
    (('params/Dense_0/kernel', 1, 0), 'output', 'an axis of the result'),
    (('params/Conv_0/kernel', 0, 1), 'conv_general_dilated', 'a window slides over it'),
    (('params/Conv_0/kernel', 2, 1), 'conv_general_dilated', 'multiplied and summed')])
def test_results_windows_and_inputs(model, entry, primitive, why):
  fn, params, x = model()
  assert graph.explain(fn, params, entry, x).steps[-1][:2] == (primitive, why)


@pytest.mark.parametrize('use', [
    (lambda h: jnp.argmax(h, -1)[:, None] * jnp.ones((1, 4)), 'argmax sees every entry'),
    (lambda h: jnp.fft.fft(h).real, 'fft is not known to the graph'),
    (lambda h: h / jnp.abs(h), 'not finite where an entry is 0'),
    (lambda h: h - jnp.cos(h).sum(-1, keepdims=True), 'a sum over entries that are not 0 when it is masked')])
def test_reasons(use):
  f, why = use
  params = {'a': jnp.ones((3, 4)), 'b': jnp.ones((4, 2))}
  fn = lambda p, x: f(x @ p['a']).astype(jnp.float32) @ p['b']
  assert graph.explain(fn, params, ('a', 1, 0), jnp.ones((2, 3))).steps[-1].why == why


def test_within_scan():
  fn = lambda p, x: jax.lax.scan(lambda h, w: (jax.nn.softmax(h @ w), None), x, p['w'])[0]
  found = graph.explain(fn, {'w': jnp.ones((2, 3, 3))}, ('w', 2, 0), jnp.ones((1, 3)))
  assert found.channel is None and found.steps


ERRORS = {
    'number': (9, r'explain: channel 9, wanted one of 0..3'), 'negative': (-1, 'channel -1, wanted one of 0..3'),
    'path': (('params/Conv_9/kernel', 0, 0), r"\('params/Conv_9/kernel', 0, 0\), wanted .* of one of the leaves \['params/Conv_0"),
    'entry': (('params/Conv_0/kernel', 3, 4), r'wanted \(path, axis, entry\) of \(3, 3, 3, 4\)')}


@pytest.mark.parametrize('name', ERRORS)
def test_errors(model, name):
  channel, text = ERRORS[name]
  fn, params, x = model()
  with pytest.raises(EffjaxError, match=text):
    graph.explain(fn, params, channel, x)
