"""FitNets hints against float64 and least squares."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import distill
from effjax.errors import EffjaxError

KEY = jax.random.key(0)
S = jax.random.normal(KEY, (2, 4, 4, 3))
T = jax.random.normal(jax.random.fold_in(KEY, 1), (2, 4, 4, 5))
D = jax.random.normal(jax.random.fold_in(KEY, 2), (2, 7))
OUT, TARGETS = {'features': {'s': S, 'd': D}}, {'teacher': {'features': {'t': T, 'd': D}}}


def test_the_loss_is_the_sum_of_mean_squares():
  term = distill.features({'s': 't', 'd': 'd'}, weight=0.5)
  head = term.init(KEY, OUT, TARGETS)
  f = lambda name, x: np.float64(x) @ np.float64(head[name]['kernel']) + np.float64(head[name]['bias'])
  expected = 0.5 * (((f('s', S) - T)**2).mean() + ((f('d', D) - D)**2).mean())
  np.testing.assert_allclose(term.loss(head, OUT, TARGETS), expected, rtol=1e-5)


def test_the_head_has_the_shapes_and_follows_the_key_and_not_the_order_of_pairs():
  one, two = (distill.features(p).init(KEY, OUT, TARGETS) for p in ({'s': 't', 'd': 'd'}, {'d': 'd', 's': 't'}))
  assert jax.tree.map(jnp.shape, one) == {'d': {'bias': (7,), 'kernel': (7, 7)}, 's': {'bias': (5,), 'kernel': (3, 5)}}
  np.testing.assert_array_equal(one['s']['kernel'], two['s']['kernel'])


def test_init_takes_shapes_alone():
  specs = jax.eval_shape(lambda: (OUT, TARGETS))
  head = distill.features({'s': 't'}).init(KEY, *specs)
  assert head['s']['kernel'].shape == (3, 5)


def test_the_best_regressor_is_least_squares():
  """The loss is quadratic in the head: at numpy's solution its gradient is zero."""
  rows = np.concatenate([np.float64(S).reshape(-1, 3), np.ones((32, 1))], 1)
  best = np.linalg.lstsq(rows, np.float64(T).reshape(-1, 5), rcond=None)[0].astype(np.float32)
  head = {'s': {'kernel': jnp.asarray(best[:3]), 'bias': jnp.asarray(best[3])}}
  grad = jax.grad(distill.features({'s': 't'}).loss)(head, OUT, TARGETS)
  assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grad)) < 1e-6


def test_equal_networks_and_the_identity_give_zero():
  head = {'d': {'kernel': jnp.eye(7), 'bias': jnp.zeros(7)}}
  assert float(distill.features({'d': 'd'}).loss(head, OUT, TARGETS)) < 1e-12


def test_gradients_reach_student_and_head_and_not_the_teacher():
  term = distill.features({'s': 't'})
  head = term.init(KEY, OUT, TARGETS)
  by_head, by_student, by_teacher = jax.grad(term.loss, (0, 1, 2))(head, OUT, TARGETS)
  assert all(bool(jnp.any(g != 0)) for g in jax.tree.leaves((by_head, by_student['features']['s'])))
  assert all(bool(jnp.all(g == 0)) for g in jax.tree.leaves(by_teacher))


def test_errors():
  with pytest.raises(EffjaxError, match='distill.features: no pairs: give'):
    distill.features({})
  with pytest.raises(EffjaxError, match=r"the student has no feature 'x', it has \['d', 's'\]: let its forward"):
    distill.features({'x': 't'}).init(KEY, OUT, TARGETS)
  with pytest.raises(EffjaxError, match=r"the teacher has no feature 'x', it has \['d', 't'\]"):
    distill.features({'s': 'x'}).init(KEY, OUT, TARGETS)
  with pytest.raises(EffjaxError, match="distill.features: the targets have no 'teacher'"):
    distill.features({'s': 't'}).init(KEY, OUT, {})
  with pytest.raises(EffjaxError, match=r"'s' of the student has shape \(2, 4, 4, 3\), the teacher's partner \(2, 7\)"):
    distill.features({'s': 'd'}).loss({'s': {'kernel': jnp.ones((3, 7)), 'bias': jnp.ones(7)}}, OUT, TARGETS)
