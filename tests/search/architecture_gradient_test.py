"""Four gradients of a bilevel problem: the paper's toy, a quadratic in closed form, and each against another."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.search.architecture_gradient import finite_differences, first_order, implicit, unrolled

XI = .1


def quadratic():
  """L_train = (w - A a)^T H (w - A a) / 2 and L_val = |w - t|^2 / 2 + rho |a|^2 / 2, in float64; eigenvalues .5 to 4."""
  random = np.random.default_rng(0)
  q, _ = np.linalg.qr(random.normal(size=(5, 5)))
  h, a_matrix = q @ np.diag([.5, 1., 2., 3., 4.]) @ q.T, random.normal(size=(5, 3))
  t, w, a, rho = random.normal(size=5), random.normal(size=5), random.normal(size=3), .7
  train = lambda w, a: (w['w'] - a_matrix @ a) @ h @ (w['w'] - a_matrix @ a) / 2
  val = lambda w, a: ((w['w'] - t)**2).sum() / 2 + rho * (a**2).sum() / 2
  return train, val, h, a_matrix, t, w, a, rho


@pytest.mark.parametrize('gradient', [unrolled, finite_differences])
def test_toy_of_the_paper_ends_at_its_fixed_point(gradient):
  # L_val = a w - 2 a + 1, L_train = w^2 - 2 a w + a^2: a = w = 2 / (1 + 2 xi); xi = 0 is first order.
  train, val = lambda w, a: w * w - 2 * a * w + a * a, lambda w, a: a * w - 2 * a + 1

  def step(xi, carry, _):
    w, a = carry
    da = gradient(train, val, w, a, inner_rate=xi)[1]
    return (w - .1 * jax.grad(train)(w, a), a - .1 * da), None

  end = lambda xi: jax.lax.scan(functools.partial(step, xi), (jnp.float32(-2.), jnp.float32(2.)), None, length=500)[0]
  xi = np.array([0., .1, .25, .5], np.float32)
  np.testing.assert_allclose(jax.vmap(end)(xi), np.tile(2 / (1 + 2 * xi), (2, 1)), rtol=1e-4)
  np.testing.assert_array_equal(gradient(train, val, xi[1], xi[2], inner_rate=0.)[1], first_order(val, xi[1], xi[2])[1])


@pytest.mark.parametrize('gradient', [unrolled, finite_differences])
def test_the_quadratic_in_closed_form(gradient):
  with jax.enable_x64(True):
    train, val, h, a_matrix, t, w, a, rho = quadratic()
    new = w - XI * h @ (w - a_matrix @ a)
    loss, da = run(gradient, train, val, {'w': jnp.asarray(w)}, jnp.asarray(a), inner_rate=XI)
    np.testing.assert_allclose(loss, ((new - t)**2).sum() / 2 + rho * (a**2).sum() / 2, rtol=1e-13)
    np.testing.assert_allclose(da, rho * a + XI * a_matrix.T @ h @ (new - t), rtol=1e-11)


@pytest.mark.parametrize('length', [1., 1e-4])
def test_a_quadratic_has_the_same_differences_at_any_eps(length, monkeypatch):
  monkeypatch.setattr('effjax.search.architecture_gradient.PERTURBATION', length)
  with jax.enable_x64(True):
    train, val, _, _, _, w, a, _ = quadratic()
    tree = {'w': jnp.asarray(w)}, jnp.asarray(a)
    exact, differences = (run(f, train, val, *tree, inner_rate=XI)[1] for f in (unrolled, finite_differences))
    np.testing.assert_allclose(differences, exact, rtol=1e-9)


def test_one_exact_newton_step_unrolled_is_the_implicit_gradient():
  # H = h I and xi = 1 / h: w' is the optimum A a, and the gradient there the derivative of L_val(A a, a).
  with jax.enable_x64(True):
    _, val, _, a_matrix, t, w, a, rho = quadratic()
    train = lambda w, a: 4. * ((w['w'] - a_matrix @ a)**2).sum() / 2
    exact = rho * a + a_matrix.T @ (a_matrix @ a - t)
    w, a = {'w': jnp.asarray(w)}, jnp.asarray(a)
    np.testing.assert_allclose(run(unrolled, train, val, w, a, inner_rate=.25)[1], exact, rtol=1e-12)
    optimum = {'w': jnp.asarray(a_matrix @ a)}
    np.testing.assert_allclose(run(implicit, train, val, optimum, a, inner_rate=.25, terms=1)[1], exact, rtol=1e-12)


@pytest.mark.parametrize('terms', [1, 2, 7])
def test_implicit_is_the_truncated_series(terms):
  with jax.enable_x64(True):
    train, val, h, a_matrix, t, w, a, rho = quadratic()
    inverse = XI * sum(np.linalg.matrix_power(np.eye(5) - XI * h, k) for k in range(terms))
    loss, da = run(implicit, train, val, {'w': jnp.asarray(w)}, jnp.asarray(a), inner_rate=XI, terms=terms)
    np.testing.assert_allclose(loss, ((w - t)**2).sum() / 2 + rho * (a**2).sum() / 2, rtol=1e-13)
    np.testing.assert_allclose(da, rho * a + a_matrix.T @ h @ inverse @ (w - t), rtol=1e-11)


def test_implicit_tends_to_the_inverse_at_the_rate_of_the_smallest_eigenvalue():
  """The error is A^T (I - xi H)^K (w - t), so it shrinks by 1 - xi lambda_min = .95 a term in the end."""
  with jax.enable_x64(True):
    train, val, _, a_matrix, t, w, a, rho = quadratic()
    exact = rho * a + a_matrix.T @ (w - t)
    error = [np.linalg.norm(run(implicit, train, val, {'w': jnp.asarray(w)}, jnp.asarray(a), inner_rate=XI, terms=k)[1] - exact)
             for k in (100, 200, 400)]
    np.testing.assert_allclose(error[1] / error[0], .95**100, rtol=1e-2)
    assert error[2] < 1e-7


def mlp(dtype):
  """A network whose hidden layer mixes two nonlinearities by a softmax, and its two losses."""
  random = np.random.default_rng(3)
  normal = lambda *shape: jnp.asarray(random.normal(size=shape), dtype)
  weights = {'in': normal(3, 4), 'out': normal(4, 2)}
  xs, ys, decisions = normal(2, 8, 3), normal(2, 8, 2), {'logits': normal(2), 'shift': jnp.ones(1, dtype)}

  def loss(part, w, a):
    p, h = jax.nn.softmax(a['logits']), xs[part] @ w['in']
    y = (p[0] * jnp.tanh(h) + p[1] * jax.nn.sigmoid(h)) @ w['out']
    return ((y - ys[part])**2).mean() + .1 * (a['shift']**2).sum() * (w['in']**2).mean()

  return functools.partial(loss, 0), functools.partial(loss, 1), weights, decisions


def run(gradient, train, val, w, a, **options):
  losses = (val,) if gradient is first_order else (train, val)
  return jax.jit(functools.partial(gradient, *losses, **options))(w, a)


def momentum(w, g):
  """A step with weight decay and a buffer of momentum, here some function of w."""
  return jax.tree.map(lambda w, g: w - jnp.asarray(.3, w.dtype) * (g + jnp.asarray(.05, w.dtype) * w + jnp.sin(w)), w, g)


def test_a_network_unrolled_against_differences_with_a_step_of_its_own():
  with jax.enable_x64(True):
    problem = mlp(jnp.float64)
    (exact_loss, exact), (loss, differences) = (run(f, *problem, inner_step=momentum) for f in (unrolled, finite_differences))
    np.testing.assert_allclose(loss, exact_loss, rtol=1e-13)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3), differences, exact)
    plain = run(first_order, *problem)[1]  # the second-order term is not lost among the tolerance
    assert float(jnp.abs(plain['logits'] - exact['logits']).max()) > .05 * float(jnp.abs(exact['logits']).max())


def test_unrolled_against_differences_of_the_whole_by_each_decision():
  with jax.enable_x64(True):
    train, val, w, a = mlp(jnp.float64)
    compiled = jax.jit(lambda logits: unrolled(train, val, w, a | {'logits': logits}, inner_rate=.3))
    value = lambda logits: float(compiled(logits)[0])
    for i, unit in enumerate(np.eye(2) * 1e-5):
      slope = (value(a['logits'] + unit) - value(a['logits'] - unit)) / 2e-5
      np.testing.assert_allclose(compiled(a['logits'])[1]['logits'][i], slope, rtol=1e-7)


def test_differences_where_the_held_out_loss_is_flat():
  train, val = lambda w, a: (w * a)**2, lambda w, a: 0 * w + a**2
  np.testing.assert_array_equal(finite_differences(train, val, jnp.float32(1.), jnp.float32(3.), inner_rate=.1)[1], 6.)


CASES = {first_order: {}, unrolled: {'inner_rate': .1}, implicit: {'inner_rate': .1, 'terms': 3},
         finite_differences: {'inner_rate': .1}}


@pytest.mark.parametrize('gradient', CASES, ids=lambda f: f.__name__)
def test_dtypes_are_kept_and_aux_comes_along(gradient):
  train, val, w, a = mlp(jnp.float32)
  with_aux = lambda w, a: (val(w, a), {'mean': w['in'].mean()})
  (loss, aux), single = run(gradient, train, with_aux, w, a, has_aux=True, **CASES[gradient])
  assert loss.dtype == jnp.float32 and list(aux) == ['mean'] and aux['mean'].shape == ()
  dtype = jnp.float32 if gradient is finite_differences else jnp.bfloat16
  value, da = run(gradient, *mlp(dtype), **CASES[gradient])
  assert value.dtype == dtype and jax.tree.structure(da) == jax.tree.structure(a)
  assert all(g.dtype == dtype and not g.weak_type for g in jax.tree.leaves(da))
  for name in da:
    np.testing.assert_allclose(da[name].astype(jnp.float32), single[name], atol=.02 if dtype == jnp.bfloat16 else 1e-5)


def test_mixed_dtypes():
  train, val = lambda w, a: (w['a'] * a.astype(w['a'].dtype))**2, lambda w, a: w['a']**2
  w = {'a': jnp.float32(1.), 'b': jnp.zeros((0,), jnp.float32)}
  for gradient in (unrolled(train, val, w, jnp.bfloat16(2.), inner_rate=.1)[1],
                   implicit(train, val, w, jnp.bfloat16(2.), inner_rate=.1, terms=2)[1]):
    assert gradient.dtype == jnp.bfloat16


def test_under_vmap_with_a_traced_rate():
  problem = mlp(jnp.float32)
  options = lambda gradient, rate: CASES[gradient] | {'inner_rate': rate}
  every = jax.jit(jax.vmap(lambda rate: [f(*problem, **options(f, rate))[1]['logits'] for f in list(CASES)[1:]]))
  for both, gradient in zip(every(jnp.array([.1, .2])), list(CASES)[1:], strict=True):
    one = run(gradient, *problem, **CASES[gradient])[1]['logits']
    np.testing.assert_allclose(both[0], one, rtol=2e-3, atol=1e-5)
    assert float(jnp.abs(both[1] - both[0]).max()) > 1e-3


def test_errors():
  train, val, w, a = mlp(jnp.float32)
  with pytest.raises(EffjaxError, match='unrolled: wants either inner_rate or inner_step, got neither: the rate is usually'):
    unrolled(train, val, w, a)
  with pytest.raises(EffjaxError, match='finite_differences: wants either inner_rate or inner_step, got both'):
    finite_differences(train, val, w, a, inner_rate=.1, inner_step=momentum)
  with pytest.raises(EffjaxError, match='implicit: wants at least 1 term, got 0: use first_order for none'):
    implicit(train, val, w, a, inner_rate=.1, terms=0)
  with pytest.raises(EffjaxError, match="finite_differences: leaf 'decisions/logits' has dtype bfloat16, wanted float32 or float64: "
                                        'rounding is as large as the differences, use unrolled'):
    finite_differences(*mlp(jnp.bfloat16), inner_rate=.1)
