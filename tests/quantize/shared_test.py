"""Weight sharing against float64 k-means, scikit-learn's, and gradients summed by hand."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.cluster import KMeans

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.quantize.levels import distinct, nearest
from effjax.quantize.shared import k_means, sharing_rate

KEY = jax.random.key(11)
W = jax.random.normal(KEY, (3, 3, 8, 8))


def lloyd(v, entries):
  """In float64, from equal distances."""
  centroids, before = np.linspace(v.min(), v.max(), entries), None
  while True:
    index = np.abs(v[:, None] - centroids).argmin(1)
    if before is not None and (index == before).all():
      return centroids, index
    before = index
    centroids = np.array([v[index == k].mean() if (index == k).any() else c for k, c in enumerate(centroids)])


def squared_error(v, centroids):
  return ((v[:, None] - np.float64(centroids))**2).min(1).sum()


@pytest.mark.parametrize('entries', [2, 7, 16])
def test_k_means_is_lloyds_in_float64_and_scikit_learns(entries):
  v = np.asarray(jax.random.uniform(jax.random.fold_in(KEY, entries), (3000,), minval=-1)).astype(np.float64)
  ours = k_means(jnp.asarray(v, jnp.float32), jnp.ones(3000, bool), entries)
  np.testing.assert_allclose(ours, lloyd(v, entries)[0], rtol=1e-5, atol=1e-6)
  first = np.linspace(v.min(), v.max(), entries)[:, None]
  theirs = KMeans(entries, init=first, n_init=1, tol=0, max_iter=300, algorithm='lloyd').fit(v[:, None])
  np.testing.assert_allclose(squared_error(v, lloyd(v, entries)[0]), theirs.inertia_, rtol=1e-12)
  np.testing.assert_allclose(squared_error(v, ours), theirs.inertia_, rtol=1e-9)


@pytest.mark.parametrize('zero', [True, False])
def test_zeros_stay_and_all_others_are_at_their_nearest_centroid(zero):
  w = jnp.where(jnp.abs(W) > 1, W, 0)
  rule = quantize.shared(3, zero=zero)
  slots = rule.init(KEY, w)
  y, centroids = np.asarray(rule.apply(*slots, None)), np.asarray(slots.phi['centroids'])
  assert centroids.shape == (8 - zero,) and slots.state['index'].dtype == jnp.uint8
  kept = np.asarray(w != 0) | (not zero)
  np.testing.assert_array_equal(y[~kept], 0)
  apart = np.abs(np.asarray(w)[kept][:, None] - centroids)
  np.testing.assert_allclose(np.abs(y[kept] - np.asarray(w)[kept]), apart.min(1), rtol=1e-5)
  trained = slots._replace(phi={'centroids': slots.phi['centroids'] + .3})
  np.testing.assert_array_equal(rule.apply(*trained, None)[~kept], 0)


def test_gradient_of_a_centroid_is_the_sum_over_its_weights():
  w, rule = jnp.where(jnp.abs(W) > .5, W, 0), quantize.shared(4)
  slots, t = rule.init(KEY, w), jnp.cos(5 * W)
  found = jax.grad(lambda phi: jnp.sum(rule.apply(None, phi, slots.state, KEY) * t))(slots.phi)['centroids']
  index = np.asarray(slots.state['index'])
  by_hand = [np.float64(t)[index == k + 1].sum() for k in range(15)]
  np.testing.assert_allclose(found, by_hand, rtol=1e-5, atol=1e-5)


def test_training_the_centroids_lowers_what_k_means_does_not_look_at():
  rule = quantize.shared(2)
  slots, importance = rule.init(KEY, W), jnp.exp(2 * jax.random.normal(jax.random.fold_in(KEY, 1), W.shape))
  loss = lambda phi: jnp.mean(importance * (rule.apply(None, phi, slots.state, KEY) - W)**2)
  phi = slots.phi
  for _ in range(50):
    phi = jax.tree.map(lambda c, g: c - .05 * g, phi, jax.grad(loss)(phi))
  assert loss(phi) < loss(slots.phi)


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.float32, (4, 3), elements=st.floats(-8, 8, width=32)), st.integers(1, 8))
def test_levels_ascend_and_hold_every_weight_bitwise(w, bits):
  rule = quantize.shared(bits)
  slots = rule.init(KEY, jnp.asarray(w))
  y, levels = np.asarray(rule.apply(*slots, None)), np.asarray(rule.facts(slots, True).levels)
  assert (np.diff(levels) > 0).all() and len(levels) == 2**bits and 0 in levels
  assert np.isin(y.view(np.uint32), levels.view(np.uint32)).all()
  assert ((y == 0) >= (w == 0)).all()


@pytest.mark.parametrize('w', [jnp.zeros((4, 4)), jnp.full((4, 4), 2.5), jnp.full((1, 1), -3.)])
def test_arrays_of_one_value_are_kept(w):
  rule = quantize.shared(3)
  slots = rule.init(KEY, w)
  np.testing.assert_array_equal(rule.apply(*slots, None), w)
  assert np.isfinite(rule.facts(slots, True).levels).all()


def test_few_values_are_kept_exactly():
  w = jnp.array([[-1.5, 0., .25], [2., .25, -1.5]])
  rule = quantize.shared(3)
  np.testing.assert_allclose(rule.apply(*rule.init(KEY, w), None), w, rtol=1e-6)


def test_distinct_and_nearest():
  np.testing.assert_array_equal(distinct(jnp.array([1., 1., 1.])), [1, 3, 5])
  levels = jnp.sort(jax.random.normal(KEY, (100,)))
  x = 2 * jax.random.normal(jax.random.fold_in(KEY, 2), (500,))
  brute = np.abs(np.float64(x)[:, None] - np.float64(levels)).min(1)
  np.testing.assert_allclose(jnp.abs(levels[nearest(x, levels)] - x), brute, rtol=1e-5, atol=1e-7)


def test_the_rate_of_the_papers_examples():
  assert sharing_rate(16, 4) == 3.2
  assert round(sharing_rate(10**6, 16), 3) == 7.999


@pytest.mark.parametrize('bits', [0, 9])
def test_wrong_bits(bits):
  with pytest.raises(EffjaxError, match=f'shared: bits must be a whole number from 1 to 8, got {bits}: an index is one'):
    quantize.shared(bits)


def test_weights_that_are_not_finite():
  with pytest.raises(EffjaxError, match=r'shared: an array of shape \(3, 3, 8, 8\) has entries that are not finite'):
    quantize.shared().init(KEY, W.at[0].set(jnp.inf))
