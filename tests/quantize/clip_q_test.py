"""CLIP-Q against a float64 reference written from section 3.1 of the paper."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.export.kernels import codes_of

KEY = jax.random.key(8)
W = jax.random.normal(KEY, (3, 3, 4, 8)) + .3


def reference(w, prune, bits):
  """Each side by itself: sort magnitudes, clip, cut the rest into equal intervals, average each."""
  w = np.float64(w).ravel()
  y, kept = np.zeros_like(w), {}
  for sign in (-1, 1):
    mine = np.flatnonzero(np.sign(w) == sign)
    ordered = mine[np.argsort(np.abs(w[mine]), kind='stable')]
    kept[sign] = ordered[int(np.rint(np.float32(prune) * len(mine))):]
  length = {sign: np.ptp(w[at]) for sign, at in kept.items()}
  total = 2**bits - 1
  below = int(np.clip(np.rint(total * length[-1] / (length[-1] + length[1])), 1, total - 1))
  for sign, n in ((-1, below), (1, total - below)):
    at = kept[sign]
    code = np.minimum((w[at] - w[at].min()) * n // length[sign], n - 1)
    for each in np.unique(code):
      y[at[code == each]] = w[at[code == each]].mean()
  return y, below


def compiled(*options):
  """The rule as one program: operation by operation each test would compile hundreds."""
  rule = quantize.clip_q(*options)
  return rule._replace(apply=jax.jit(rule.apply))


def deployed(w, *options):
  """Weights and facts, from one program."""
  rule = quantize.clip_q(*options)
  look = lambda slots: (rule.apply(*slots, None), rule.facts(slots, True).levels)
  return map(np.asarray, jax.jit(look)(rule.init(KEY, jnp.asarray(w))))


@pytest.mark.parametrize(('prune', 'bits'), [
    pytest.param(prune, bits, marks=[pytest.mark.slow] * ((prune, bits) not in ((0., 2), (.3, 4), (.6, 6), (.95, 2))))
    for prune in (0., .3, .6, .95) for bits in (2, 4, 6)])
def test_values_and_gradient(prune, bits):
  rule = quantize.clip_q(prune, bits)

  @jax.jit
  def values_and_gradient(w, g):
    y, pull = jax.vjp(lambda w: rule.apply(w, {}, {}, KEY), w)
    return y, pull(g)[0]

  y, gradient = values_and_gradient(W, jnp.cos(W))
  np.testing.assert_allclose(np.ravel(y), reference(W, prune, bits)[0], rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(gradient, jnp.cos(W))


@pytest.mark.parametrize(('prune', 'bits'), [(.6, 4), (.25, 2), (0., 3), (.9, 8)])
def test_sparsity_is_exact_values_are_few_and_the_sum_is_kept(prune, bits):
  rule, w = compiled(prune, bits), np.asarray(jax.random.normal(KEY, (2000,)))
  y = np.asarray(rule.apply(jnp.asarray(w), {}, {}, None))
  for side in (w > 0, w < 0):
    assert (y[side] == 0).sum() == np.rint(np.float32(prune) * side.sum())
    np.testing.assert_allclose(y[side].sum(dtype=np.float64), w[side & (y != 0)].sum(dtype=np.float64), rtol=1e-5)
  assert len(np.unique(y[y != 0])) <= 2**bits - 1


def test_the_reference_figures_of_sixty_percent_and_four_bits():
  y = np.asarray(compiled(.6, 4).apply(jax.random.normal(KEY, (10000,)), {}, {}, None))
  assert (y == 0).mean() == pytest.approx(.6, abs=1e-4) and len(np.unique(y[y != 0])) == 15


@settings(max_examples=5, deadline=None)
@given(hnp.arrays(np.float32, (4, 5), elements=st.floats(-8, 8, width=32)), st.integers(2, 8), st.floats(0, .99))
def test_levels_ascend_and_hold_every_value(w, bits, prune):
  y, levels = deployed(w, prune, bits)
  assert len(levels) == 2**bits and (np.diff(levels) > 0).all() and (levels == 0).any()
  assert set(y.ravel().tolist()) <= set(levels.tolist())
  assert (np.sign(y)[y != 0] == np.sign(w)[y != 0]).all()


@pytest.mark.parametrize('w', [jnp.zeros((3, 2)), jnp.ones((1, 1)), -jnp.ones((2, 2)), jnp.array([1., -1., 1., -1.]),
                               jnp.array([1e-30, -1e-30, 0.]), jnp.arange(1., 9.), jnp.array([3e38, -3e38, 1.])])
@pytest.mark.parametrize('bits', [2, pytest.param(8, marks=pytest.mark.slow)])
def test_degenerate_arrays(w, bits):
  """One value a side, one sign, zeros, extremes: without clipping, few values are kept as they are."""
  y, levels = deployed(w, 0., bits)
  assert np.isfinite(y).all() and np.isfinite(levels).all()
  if len(np.unique(w)) <= 3 and np.abs(w).max() < 1e30:
    np.testing.assert_array_equal(y, w)


def test_clipped_weights_come_back_when_they_grow():
  rule = compiled(.5, 3)
  w = jnp.array([.1, .2, .3, .4, -1., -2.])
  assert float(rule.apply(w, {}, {}, KEY)[0]) == 0.
  grad = jax.jit(jax.grad(lambda w: rule.apply(w, {}, {}, KEY)[0]))(w)
  np.testing.assert_array_equal(grad, [1., 0., 0., 0., 0., 0.])
  y = rule.apply(w + .5 * grad, {}, {}, KEY)
  assert float(y[0]) > .5 and float(y[2]) == 0.


def test_the_two_sides_have_thresholds_of_their_own():
  w = jnp.concatenate([jnp.linspace(1., 2., 10), -jnp.linspace(.01, .02, 10)])
  y = compiled(.5, 4).apply(w, {}, {}, None)
  np.testing.assert_array_equal(y == 0, ([True] * 5 + [False] * 5) * 2)


def test_export_refuses_it():
  rule = quantize.clip_q()
  weights, facts = jax.jit(lambda slots: (rule.apply(*slots, None), rule.facts(slots, True)))(rule.init(KEY, W))
  with pytest.raises(EffjaxError, match="the codes of 'w' are numbers of levels"):
    codes_of('finalize', 'w', weights, facts)


@pytest.mark.parametrize(('make', 'message'), [
    (lambda: quantize.clip_q(1.), r'clip_q: prune must be a fraction from 0 to below 1, got 1.0'),
    (lambda: quantize.clip_q(-.1), r'clip_q: prune must be a fraction from 0 to below 1, got -0.1'),
    (lambda: quantize.clip_q(.5, 1), 'clip_q: bits must be a whole number from 2 to 8, got 1: one code is 0'),
    (lambda: quantize.clip_q(.5, 9), 'clip_q: bits must be a whole number from 2 to 8, got 9'),
    (lambda: quantize.clip_q().init(KEY, W / 0.), 'clip_q: an array of shape .* has entries that are not finite')])
def test_errors(make, message):
  with pytest.raises(EffjaxError, match=message):
    make()
