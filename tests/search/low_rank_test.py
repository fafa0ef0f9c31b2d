"""A choice of rank, against products by hand."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import cost, graph
from effjax.errors import EffjaxError
from effjax.reparam import Fact
from effjax.search.encoding import space_of
from effjax.search.low_rank import LowRank

KEY = jax.random.key(0)
RANKS = (1, 4, 2)
OPERATORS = tuple(f'r{r}' for r in RANKS)
P = np.array([.2, -.3, .5])


def start(dtype=jnp.float32, **how):
  draw = lambda i, *shape: jax.random.normal(jax.random.fold_in(KEY, i), shape, dtype)
  params = {'choice': jnp.asarray(P, dtype), 'u': draw(0, 6, 4), 'v': draw(1, 4, 5)}
  return LowRank(5, OPERATORS, **how), params, draw(2, 2, 3, 6)


def run(net, merged):
  return jax.jit(lambda params, x: net.clone(merged=merged).apply({'params': params}, x, False))


@pytest.mark.parametrize('merged', [False, True])
def test_the_sum_and_its_gradient_are_those_of_matrices_of_these_ranks(merged):
  with jax.enable_x64(True):
    net, params, x = start(jnp.float64)
    u, v = (np.asarray(params[name]) for name in 'uv')
    terms = [np.asarray(x) @ (u[:, :r] @ v[:r]) for r in RANKS]
    np.testing.assert_allclose(run(net, merged)(params, x), sum(p * y for p, y in zip(P, terms)), rtol=1e-12, atol=1e-13)
    gradient = jax.grad(lambda params: jnp.sum(jnp.sin(run(net, merged)(params, x))))(params)
    slope = np.cos(sum(p * y for p, y in zip(P, terms)))
    np.testing.assert_allclose(gradient['choice'], [np.sum(slope * y) for y in terms], rtol=1e-11)
    rows = [np.arange(4) < r for r in RANKS]
    by_v = sum(p * row[:, None] * (u.T @ np.einsum('abi,abj->ij', x, slope)) for p, row in zip(P, rows))
    np.testing.assert_allclose(gradient['v'], by_v, rtol=1e-11, atol=1e-12)


def test_a_one_hot_has_that_rank():
  net, params, _ = start()
  for r, p in zip(RANKS, jnp.eye(3)):
    matrix = run(net, True)(params | {'choice': p}, jnp.eye(6))
    assert np.linalg.matrix_rank(np.asarray(matrix), tol=1e-4) == r


def test_expected_macs_are_the_mean_over_ranks_and_the_factors_are_stored_whole():
  net, params, x = start(merged=False)
  found = graph.profile(lambda params, x: net.apply({'params': params}, x, False), params, x)
  p = np.array([.2, .3, .5], np.float32)
  facts = {'choice': Fact(choice=jnp.asarray(p))}
  np.testing.assert_allclose(cost.macs(found, facts), 6 * 11 * p @ np.array(RANKS), rtol=1e-6)  # 6 rows of x
  assert float(cost.params(found, facts)) == 4 * 11


def test_dtypes_vmap_and_the_space():
  net, params, x = start(dtype=jnp.float32)
  assert net.clone(dtype=jnp.bfloat16).apply({'params': params}, x, False).dtype == jnp.bfloat16
  half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
  for merged in (False, True):
    assert run(net, merged)(half, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
  each = lambda merged: jax.vmap(lambda p: run(net, merged)(params | {'choice': p}, x))(jnp.eye(3))
  np.testing.assert_allclose(each(True), each(False), rtol=1e-4, atol=1e-5)
  assert space_of(net, x, False) == {'choice': OPERATORS}


ERRORS = {'Decision (top): no candidates: give it the name of an operator': (),
          "LowRank (top): unknown operator 'r0': known are 'r<rank>' such as r4": ('r1', 'r0')}


@pytest.mark.parametrize('text', ERRORS)
def test_errors(text):
  with pytest.raises(EffjaxError) as error:
    LowRank(5, ERRORS[text]).init(KEY, jnp.ones((2, 6)), False)
  assert str(error.value) == text
