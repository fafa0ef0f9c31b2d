"""The Gumbel rule of SNAS on a choice leaf; the distribution itself is tested in relax_test.py."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from effjax import search
from effjax.errors import EffjaxError

KEY = jax.random.key(0)
A = np.array([0.5, 2., -1.], np.float32)


def prepared(rule):
  return rule.init(KEY, jnp.ones(3))._replace(phi={'logits': jnp.asarray(A)})


@pytest.mark.parametrize('temperature', [0.2, 5.])
def test_the_facts_are_the_frequencies_of_the_argmax_at_every_temperature(temperature):
  rule = search.gumbel(temperature=temperature)
  p = np.asarray(rule.facts(prepared(rule), False).choice, np.float64)
  np.testing.assert_allclose(p, special.softmax(np.float64(A)), rtol=1e-5)
  draws = jax.vmap(lambda key: rule.apply(*prepared(rule), key))(jax.random.split(KEY, 10_000))
  counts = np.bincount(np.asarray(draws).argmax(-1), minlength=3)
  assert stats.chisquare(counts, p / p.sum() * 10_000).pvalue > 1e-3


def test_the_gradient_is_that_of_the_draw():
  """dz_i / da_j = z_i (delta_ij - z_j) / T."""
  rule = search.gumbel(temperature=0.7)
  slots = prepared(rule)
  z = np.asarray(rule.apply(*slots, KEY), np.float64)
  jacobian = jax.jacobian(lambda phi: rule.apply(None, phi, slots.state, KEY))(slots.phi)['logits']
  np.testing.assert_allclose(jacobian, (np.diag(z) - np.outer(z, z)) / 0.7, rtol=1e-4, atol=1e-6)


def test_deployed_is_the_largest_logit_exactly():
  rule = search.gumbel(temperature=3.)
  np.testing.assert_array_equal(rule.apply(*prepared(rule), None), [0., 1., 0.])
  np.testing.assert_array_equal(rule.facts(prepared(rule), True).choice, [0., 1., 0.])


def test_a_schedule_ends_in_one_hot_draws():
  rule = search.gumbel(temperature=lambda step: jnp.where(step < 1, 5., 1e-3))
  slots = prepared(rule)
  assert float(rule.apply(*slots, KEY).max()) < 0.9
  slots = slots._replace(state=rule.update(slots, jnp.ones(3)))
  assert float(rule.apply(*slots, KEY).max()) > 0.999


def test_a_kernel_is_refused():
  with pytest.raises(EffjaxError, match='gumbel: wants the vector of a Choice'):
    search.gumbel(temperature=1.).init(KEY, jnp.ones((2, 2)))
