"""Sums whose weights stand elsewhere."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import ConvBN
from effjax.search.choice import Choice, Skip
from effjax.search.mixed import Decision, Mixed

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 4, 4, 3))
P = jnp.array([.3, .7])


def ops():
  return ConvBN(3, name='conv'), Skip(name='skip')


def test_the_sum_is_that_of_a_choice_with_these_weights():
  variables = Mixed(ops()).init(KEY, X, P, False)
  assert sorted(variables['params']) == ['conv']
  within = {**variables, 'params': {**variables['params'], 'choice': P}}
  np.testing.assert_array_equal(Mixed(ops()).apply(variables, X, P, False), Choice(ops()).apply(within, X, False))


def test_a_constant_one_hot_traces_its_operator_alone():
  variables = Mixed(ops()).init(KEY, X, P, False)
  run = lambda p: Mixed(ops()).apply(variables, X, p, False)
  np.testing.assert_array_equal(run(np.array([1., 0.], np.float32)), run(jnp.array([1., 0.])))
  assert Mixed(ops()).init(KEY, X, np.array([0., 1.], np.float32), False) == {}  # of the skip
  np.testing.assert_array_equal(run(np.array(P)), run(P))  # not a one-hot: a sum


def test_the_dtype_is_that_of_the_operators():
  assert Mixed(ops()[1:] + (Skip(name='b'),)).apply({}, X.astype(jnp.bfloat16), P, False).dtype == jnp.bfloat16


ERRORS = {
    'Decision (top): no candidates: give it the name of an operator': lambda: Decision(()).init(KEY),
    'Mixed (top): 1 operators, wanted 2, one per entry of p: give each entry its operator':
        lambda: Mixed(ops()[:1]).init(KEY, X, P, False),
    "Mixed (top): candidate 'wide' gives shape (2, 4, 4, 5), candidate 'skip' gives (2, 4, 4, 3): all candidates must give "
    'one shape': lambda: Mixed((Skip(name='skip'), ConvBN(5, name='wide'))).init(KEY, X, P, False)}


@pytest.mark.parametrize('text', ERRORS)
def test_errors(text):
  with pytest.raises(EffjaxError) as error:
    ERRORS[text]()
  assert str(error.value) == text
