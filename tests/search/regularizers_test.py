"""Entropy and distance from a decision, against closed forms."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from effjax.errors import EffjaxError
from effjax.search import regularizers
from effjax.search.regularizers import total_entropy

entropy, distance_from_one_hot = jax.jit(regularizers.entropy), jax.jit(regularizers.distance_from_one_hot)
KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 3)), jnp.float32)
P = np.random.default_rng(1).dirichlet(np.full(5, .3), size=7)


def test_entropy_against_scipy():
  np.testing.assert_allclose(entropy(jnp.asarray(P, jnp.float32)), stats.entropy(P, axis=-1), rtol=1e-5, atol=1e-6)
  for n in (1, 2, 8):
    np.testing.assert_allclose(entropy(jnp.asarray(np.full(n, 1 / n), jnp.float32)), np.log(n), rtol=1e-6)
  np.testing.assert_array_equal(entropy(jnp.eye(4)), np.zeros(4))


def test_gradient_by_the_logits():
  """dH / da_i = -p_i (log p_i + H), which is 0 at equal logits; also where a probability has vanished, no nan."""
  a = np.random.default_rng(2).normal(size=(3, 4)) * 2
  gradient = jax.jit(jax.grad(lambda a: entropy(jax.nn.softmax(a)).sum()))
  p = special.softmax(a, -1)
  expected = -p * (np.log(p) + stats.entropy(p, axis=-1)[:, None])
  np.testing.assert_allclose(gradient(jnp.asarray(a, jnp.float32)), expected, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(gradient(jnp.zeros((3, 4))), np.zeros((3, 4)), atol=1e-7)
  np.testing.assert_allclose(gradient(jnp.tile(jnp.array([[500., 0., -500., 0.]]), (3, 1))), np.zeros((3, 4)), atol=1e-7)
  np.testing.assert_array_equal(jax.grad(lambda p: entropy(p))(jnp.array([1., 0.])), [-1., 0.])


@pytest.mark.parametrize(('sign', 'end'), [(1., 0.), (-1., 1.)])
def test_which_sign_does_what(sign, end):
  """+ H descends to a one-hot, of what was largest; - H to equal probabilities."""
  start = jnp.array([.3, .1, -.2])
  gradient = jax.grad(lambda a: sign * total_entropy({'choice': jax.nn.softmax(a)}))
  a, _ = jax.lax.scan(lambda a, _: (a - 2. * gradient(a), None), start, None, length=300)
  p = jax.nn.softmax(a)
  np.testing.assert_allclose(distance_from_one_hot(p), end, atol=2e-2)
  assert int(jnp.argmax(p)) == 0 or end == 1.


def test_total_over_a_tree_of_any_dtypes():
  p = P.astype(np.float32)
  tree = {'a': jnp.asarray(p[0]), 'b': [jnp.asarray(p[1:3]), jnp.array([.5, .5], jnp.bfloat16)]}
  total = total_entropy(tree)
  np.testing.assert_allclose(total, stats.entropy(P[:3], axis=-1).sum() + np.log(2), rtol=1e-2)
  assert total.dtype == jnp.float32 and not total.weak_type
  with pytest.raises(EffjaxError, match='total_entropy: no choices: give the probabilities of at least one'):
    total_entropy({})


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_distance_from_one_hot(dtype):
  p = jnp.asarray(P, dtype)
  distance = distance_from_one_hot(p)
  nearest = np.eye(5)[P.argmax(-1)]
  np.testing.assert_allclose(distance.astype(jnp.float32), np.abs(P - nearest).sum(-1) / (2 * (1 - 1 / 5)),
                             atol=2e-2 if dtype == jnp.bfloat16 else 1e-6)
  assert distance.dtype == entropy(p).dtype == dtype and not distance.weak_type
  for n in (1, 2, 3, 11):
    np.testing.assert_array_equal(distance_from_one_hot(jnp.asarray(np.eye(n), dtype)), np.zeros(n))
    even = float(distance_from_one_hot(jnp.asarray(np.full(n, 1 / n), dtype)))
    assert even <= 1 and even > (.98 if n > 1 else -1)
