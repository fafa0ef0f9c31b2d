"""Power iteration against the eigenvalues of explicit Hessians; the rule of the early stop on made histories."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.search.dominant_eigenvalue import dominant_eigenvalue, should_stop

KEY = jax.random.key(0)


def matrix(*eigenvalues):
  q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(len(eigenvalues),) * 2))
  return q @ np.diag(eigenvalues) @ q.T


def split(x):
  return {'a': jnp.asarray(x[:2]), 'b': (jnp.asarray(x[2:]),)}


def joined(tree):
  return jnp.concatenate([tree['a'], tree['b'][0]])


@pytest.mark.parametrize('eigenvalues', [(5., 3., 1., -2.), (-5., 3., 1., -2.), (1e-9, 2e-10, 0., 0.), (-7e9, 1e9, 0., 3.)])
def test_the_dominant_pair_of_a_quadratic(eigenvalues):
  with jax.enable_x64(True):
    h = matrix(*eigenvalues)
    values, vectors = np.linalg.eigh(h)
    largest = np.argmax(np.abs(values))
    loss = lambda a: joined(a) @ h @ joined(a) / 2 + joined(a).sum()
    pair = jax.jit(functools.partial(dominant_eigenvalue, loss=loss, tolerance=1e-8))(KEY, decisions=split(np.ones(4)))
    np.testing.assert_allclose(pair.value, values[largest], rtol=1e-12)
    np.testing.assert_allclose(np.abs(joined(pair.vector) @ vectors[:, largest]), 1, rtol=1e-12)
    assert pair.residual <= 1e-8 * abs(pair.value)


def test_a_hessian_that_depends_on_the_point():
  """Cross entropy of a softmax choice between three outputs: the Hessian by `jax.hessian`, its spectrum by NumPy."""
  with jax.enable_x64(True):
    random = np.random.default_rng(2)
    ys, a = jnp.asarray(random.normal(size=(3, 6))), jnp.asarray(random.normal(size=3))
    loss = lambda a: -jax.nn.log_softmax(jax.nn.softmax(a) @ ys)[2] + jnp.sin(a).sum()
    values = np.linalg.eigvalsh(jax.jit(jax.hessian(loss))(a))
    pair = jax.jit(functools.partial(dominant_eigenvalue, loss=loss, tolerance=1e-7, max_steps=2000))(KEY, decisions=a)
    np.testing.assert_allclose(pair.value, values[np.argmax(np.abs(values))], rtol=1e-10)


def test_no_curvature_gives_zero_and_a_unit_vector():
  pair = dominant_eigenvalue(KEY, lambda a: a.sum(), jnp.ones(3))
  assert float(pair.value) == 0 and float(pair.residual) == 0 and jnp.isfinite(pair.vector).all()
  np.testing.assert_allclose(jnp.linalg.norm(pair.vector), 1, rtol=1e-6)


def test_equal_magnitudes_of_opposite_sign_show_in_the_residual():
  pair = dominant_eigenvalue(KEY, lambda a: a[0]**2 - a[1]**2, jnp.zeros(2), max_steps=50)
  assert float(pair.residual) > 1e-2


def test_dtypes_are_kept_and_it_maps():
  h = jnp.asarray(matrix(4., -1., .5, .1), jnp.float32)
  loss = lambda a: joined({'a': a['a'].astype(jnp.float32), 'b': a['b']}) @ h @ joined(
      {'a': a['a'].astype(jnp.float32), 'b': a['b']}) / 2
  decisions = {'a': jnp.zeros(2, jnp.bfloat16), 'b': (jnp.zeros(2),)}
  find = functools.partial(dominant_eigenvalue, loss=loss, decisions=decisions, tolerance=2e-2)
  pair = jax.jit(jax.vmap(find))(jax.random.split(KEY, 3))
  assert pair.vector['a'].dtype == jnp.bfloat16 and pair.value.dtype == jnp.float32 and not pair.value.weak_type
  np.testing.assert_allclose(pair.value, np.full(3, 4.), rtol=2e-2)


def test_eigenvalue_errors():
  with pytest.raises(EffjaxError, match=r"dominant_eigenvalue: wants decisions with entries and max_steps >= 1, got leaves \[\]"
                                        ' and max_steps=200: pass the logits of a search'):
    dominant_eigenvalue(KEY, lambda a: jnp.zeros(()), {})
  with pytest.raises(EffjaxError, match=r"got leaves \[''\] and max_steps=0"):
    dominant_eigenvalue(KEY, lambda a: a.sum(), jnp.ones(2), max_steps=0)


def reference(history, k, factor):
  """The rule as in the paper: smoothed values by their middle, then the ratio at the newest of them."""
  smooth = {i: np.mean(history[i - k // 2:i + k // 2 + 1]) for i in range(k // 2, len(history) - k // 2)}
  i = max(smooth, default=-1)
  return i - k if i - k in smooth and smooth[i - k] / smooth[i] < factor else None


@pytest.mark.parametrize('window', [1, 3, 5])
def test_should_stop_is_the_rule_of_the_paper(window):
  random = np.random.default_rng(window)
  stops = 0
  for length in range(0, 40):
    history = list(np.exp(np.cumsum(.4 * random.normal(size=length))))
    assert should_stop(history, window) == reference(history, window, .75)
    stops += should_stop(history, window) is not None
  assert 3 < stops < 37


def test_should_stop_by_hand():
  flat_then_steep = [.1] * 8 + [.1, .12, .15, .2, .3]
  assert [should_stop(flat_then_steep[:n]) for n in range(9, 14)] == [None, None, None, 4, 5]
  assert should_stop([1.] * 5 + [4 / 3 - 1e-6] * 5) is None and should_stop([1.] * 5 + [4 / 3 + 1e-6] * 5) == 2
  assert should_stop([1., 2.], 1) == 0  # epoch 0, which is not None
  assert should_stop([9.] * 5 + [1.] * 5) is None


def test_should_stop_where_curvature_is_negative():
  assert should_stop([1., -5.], 1) is None and should_stop([-5., -1.], 1) is None and should_stop([-1., 1.], 1) == 0


def test_should_stop_errors():
  for window, factor in ((4, .75), (0, .75), (5, 1.), (5, 0.)):
    with pytest.raises(EffjaxError, match=f'should_stop: wants an odd window and 0 < factor < 1, got window={window} and '
                                          f'factor={factor}: the defaults of the paper are 5 and 0.75'):
      should_stop([1.], window, factor)
  with pytest.raises(EffjaxError, match=r'should_stop: the eigenvalues of epochs \[1, 2\] are not finite: did the search'):
    should_stop([1., float('nan'), float('inf')])
