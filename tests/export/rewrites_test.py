import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.export.rewrites import convertible
from effjax.graph.trace import evaluate, trace

RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(1, 5, 6, 3)), jnp.float32)


def both(fn, *args):
  """(plain, rewritten) outputs, and the primitives of the rewritten function."""
  program = trace(fn, *args)
  rewritten = jax.make_jaxpr(lambda *leaves: convertible(program, leaves))(*args)
  return evaluate(program, args), convertible(program, args), [str(eqn.primitive) for eqn in rewritten.eqns]


@pytest.mark.parametrize('kernel', [(3, 3), (3, 2), (5, 4), (2, 2)])
@pytest.mark.parametrize('strides', [(2, 2), (2, 1), (3, 2)])
@pytest.mark.parametrize('padding', ['SAME', 'VALID', ((2, 1), (0, 1))])
def test_transposed_convolutions_keep_their_values(kernel, strides, padding):
  w = jnp.asarray(RANDOM.normal(size=(*kernel, 3, 4)), jnp.float32)
  plain, rewritten, _ = both(lambda w, x: jax.lax.conv_transpose(x, w, strides, padding), w, X)
  np.testing.assert_allclose(rewritten[0], plain[0], rtol=1e-5, atol=1e-5)


def test_an_uneven_one_is_cropped_and_others_stay():
  w = jnp.ones((3, 3, 3, 4))
  found = lambda padding: both(lambda w, x: jax.lax.conv_transpose(x, w, (2, 2), padding), w, X)[2]
  assert found('SAME') == ['conv_general_dilated', 'slice']
  assert found('VALID') == ['conv_general_dilated']


def window(x, padding):
  return jax.lax.reduce_window(x, np.float32(0), jax.lax.add, (1, 3, 2, 1), (1, 2, 1, 1), padding)


def test_an_average_over_padding_is_padded_first():
  plain, rewritten, found = both(lambda p, x: jax.nn.relu(window(x, 'SAME') / 6), jnp.zeros(()), X)
  np.testing.assert_allclose(rewritten[0], plain[0], rtol=1e-5, atol=1e-6)
  assert found[:2] == ['pad', 'reduce_window_sum']


@pytest.mark.parametrize('fn', [
    lambda p, x: window(x, 'SAME') / window(jnp.ones_like(x), 'SAME'), lambda p, x: window(x, 'SAME'),
    lambda p, x: window(x, 'VALID') / 6], ids=['counted', 'sum', 'no padding'])
def test_other_sums_stay(fn):
  assert 'pad' not in both(fn, jnp.zeros(()), X)[2]
