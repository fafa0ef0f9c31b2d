"""LayerNorm by its definition, also where channels are gone."""
import jax.numpy as jnp
import numpy as np

from effjax.layers import LayerNorm

RNG = np.random.default_rng(0)
X, SCALE, BIAS = RNG.normal(1., 2., (2, 3, 4, 5)), RNG.normal(size=5), RNG.normal(size=5)


def normed(x, scale, bias):
  params = {'scale': jnp.asarray(scale, jnp.float32), 'bias': jnp.asarray(bias, jnp.float32)}
  return LayerNorm(5, epsilon=.1).apply({'params': params}, jnp.asarray(x, jnp.float32))


def test_mean_and_variance_over_channels():
  expected = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + .1) * SCALE + BIAS
  np.testing.assert_allclose(normed(X, SCALE, BIAS), expected, rtol=1e-4, atol=1e-5)


def test_a_removed_channel_counts_as_zero():
  keep = np.array([0, 1, 1, 0, 1])
  masked, less = normed(X * keep, SCALE * keep, BIAS * keep), [a[..., keep > 0] for a in (X, SCALE, BIAS)]
  np.testing.assert_allclose(normed(*less), masked[..., keep > 0], rtol=1e-5, atol=1e-6)
  assert not masked[..., keep == 0].any()


def test_a_constant_has_no_variance():
  """Rounding does not make it negative."""
  np.testing.assert_allclose(normed(np.full((3, 5), 1000.1), SCALE, BIAS), np.tile(BIAS, (3, 1)), atol=.05)
