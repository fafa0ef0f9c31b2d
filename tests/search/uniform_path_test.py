"""The single path of SPOS: uniform, and deaf to gradients."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from effjax.errors import EffjaxError
from effjax.search.uniform_path import uniform_path

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 10_000)


@pytest.mark.parametrize('n', [1, 3, 7])
def test_every_operator_is_drawn_equally_often_and_alone(n):
  rule = uniform_path()
  slots = rule.init(KEY, jnp.ones(n))
  draws = np.asarray(jax.jit(jax.vmap(lambda key: rule.apply(*slots, key)))(KEYS))
  assert set(np.unique(draws)) <= {0., 1.} and (draws.sum(-1) == 1.).all()
  assert n == 1 or stats.chisquare(draws.sum(0)).pvalue > 1e-3
  np.testing.assert_allclose(rule.facts(slots, False).choice, np.full(n, 1 / n), rtol=1e-6)


def test_the_logits_of_a_later_search_decide_what_is_deployed_and_nothing_else():
  rule = uniform_path()
  slots = rule.init(KEY, jnp.ones(3))
  found = slots._replace(state={**slots.state, 'logits': jnp.array([0., 0., 1.])})
  np.testing.assert_array_equal(rule.apply(*found, None), [0., 0., 1.])
  np.testing.assert_array_equal(rule.facts(found, True).choice, [0., 0., 1.])
  np.testing.assert_array_equal(rule.apply(*found, KEY), rule.apply(*slots, KEY))
  later = rule.update(found, jnp.ones(3))
  np.testing.assert_array_equal(later['logits'], found.state['logits'])
  assert int(later['step']) == 1


def test_nothing_trains_and_dtypes_are_kept():
  rule = uniform_path()
  slots = rule.init(KEY, jnp.ones(3, jnp.bfloat16))
  assert slots.theta is None and slots.phi == {}
  assert rule.apply(*slots, KEY).dtype == rule.apply(*slots, None).dtype == jnp.bfloat16


def test_a_kernel_is_refused():
  with pytest.raises(EffjaxError, match='uniform_path: wants the vector of a Choice'):
    uniform_path().init(KEY, jnp.ones((2, 2)))
