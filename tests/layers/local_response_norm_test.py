"""LRN against the loop of its definition, in float64."""
import jax
import numpy as np
import pytest

from effjax.layers import local_response_norm

X = 9 * jax.random.normal(jax.random.key(0), (2, 3, 7))


@pytest.mark.parametrize('options', [{}, {'size': 3, 'k': 1., 'alpha': .5, 'beta': .5}, {'size': 15, 'alpha': .1}])
def test_the_loop(options):
  size, k, alpha, beta = ({'size': 5, 'k': 2., 'alpha': 1e-4, 'beta': .75} | options).values()
  x = np.float64(X)
  y = np.empty_like(x)
  for i in range(7):
    window = x[..., max(0, i - size // 2):i + size // 2 + 1]
    y[..., i] = x[..., i] / (k + alpha * (window**2).sum(-1))**beta
  np.testing.assert_allclose(local_response_norm(X, **options), y, rtol=1e-5)


def test_without_inhibition_it_is_a_constant():
  np.testing.assert_allclose(local_response_norm(X, alpha=0.), X * 2**-.75, rtol=1e-6)
