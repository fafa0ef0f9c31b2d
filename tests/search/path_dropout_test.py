"""The path dropout of one-shot models."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from effjax.errors import EffjaxError
from effjax.search.path_dropout import path_dropout

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 10_000)


@pytest.mark.parametrize('k', [1, 2, 5])
@pytest.mark.parametrize('rate', [0.1, 0.6])
def test_all_paths_are_dropped_together_with_probability_r_whatever_their_number(k, rate):
  rule = path_dropout(rate=rate)
  slots = rule.init(KEY, jnp.ones(k))
  masks = np.asarray(jax.jit(jax.vmap(lambda key: rule.apply(*slots, key)))(KEYS))
  assert set(np.unique(masks)) == {0., 1.}  # kept paths are not rescaled
  assert stats.binomtest(int((masks == 0.).all(-1).sum()), len(KEYS), rate).pvalue > 1e-3
  keep = 1 - rate**(1 / k)
  np.testing.assert_allclose(rule.facts(slots, False).choice, np.full(k, keep), rtol=1e-5)
  for i in range(k):
    assert stats.binomtest(int(masks[:, i].sum()), len(KEYS), keep).pvalue > 1e-3


def test_paths_are_dropped_independently():
  rule = path_dropout(rate=0.25)
  slots = rule.init(KEY, jnp.ones(2))
  masks = np.asarray(jax.jit(jax.vmap(lambda key: rule.apply(*slots, key)))(KEYS)).astype(int)
  counts = np.bincount(2 * masks[:, 0] + masks[:, 1], minlength=4)
  assert stats.chisquare(counts, np.full(4, len(KEYS) / 4)).pvalue > 1e-3


def test_the_rate_follows_its_schedule_from_nothing_to_everything():
  rule = path_dropout(rate=lambda step: step.astype(jnp.float32))
  slots = rule.init(KEY, jnp.ones(4))
  np.testing.assert_array_equal(rule.apply(*slots, KEY), 1.)
  later = slots._replace(state=rule.update(slots, jnp.ones(4)))
  np.testing.assert_array_equal(rule.apply(*later, KEY), 0.)


def test_the_logits_of_a_later_search_are_deployed_and_dtypes_are_kept():
  rule = path_dropout(rate=0.5)
  slots = rule.init(KEY, jnp.ones(3, jnp.bfloat16))
  assert slots.theta is None and slots.phi == {}
  found = slots._replace(state={**slots.state, 'logits': jnp.array([0., 2., 1.], jnp.bfloat16)})
  np.testing.assert_array_equal(rule.apply(*found, None), [0., 1., 0.])
  np.testing.assert_array_equal(rule.facts(found, True).choice, [0., 1., 0.])
  assert rule.apply(*slots, KEY).dtype == jnp.bfloat16


def test_a_kernel_is_refused():
  with pytest.raises(EffjaxError, match='path_dropout: wants the vector of a Choice'):
    path_dropout(rate=0.1).init(KEY, jnp.ones((2, 2)))


@pytest.mark.parametrize('rate', [-0.1, 1.5])
def test_a_rate_is_a_probability(rate):
  with pytest.raises(EffjaxError, match=f'path_dropout: rate must be in \\[0, 1\\], got {rate}: it is the probability'):
    path_dropout(rate=rate)
