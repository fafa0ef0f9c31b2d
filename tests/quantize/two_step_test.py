"""Sparse codes against the published steps, and the second step against fine grids and all ternary weights."""
import itertools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import quantize
from effjax.errors import EffjaxError
from effjax.quantize.two_step import nearest_inputs, sparse, sparse_step

NORMAL = statistics.NormalDist()


@pytest.fixture(scope='module')
def half_wave():
  return jnp.asarray([NORMAL.inv_cdf(.5 + .5 * (i + .5) / 20000) for i in range(20000)], jnp.float32)


@pytest.mark.parametrize(('bits', 'dead_zone', 'step'), [
    (1, 0., .7979), (2, 0., .5388), (3, 0., .3217), (1, .5, 1.224), (2, .5, .651), (3, .5, .353)])
def test_the_step_of_a_half_wave_gaussian(half_wave, bits, dead_zone, step):
  assert float(sparse_step(half_wave, bits, dead_zone)) == pytest.approx(step, abs=1.5e-3)


@pytest.mark.parametrize('dead_zone', [0., .5, .9])
def test_values_and_gradients(dead_zone):
  quantizer = quantize.sparse_codes(2, dead_zone=dead_zone).from_zero()
  x = jax.random.normal(jax.random.key(0), (200,)) * 2
  phi = {'scale': jnp.float32(.7)}
  y, pull = jax.vjp(quantizer.apply, phi, x)
  v = np.asarray(x) / np.float32(.7)
  np.testing.assert_allclose(y, .7 * np.where(v > dead_zone, np.clip(np.rint(v), 1, 3), 0), rtol=1e-6)
  by_phi, by_x = pull(jnp.ones_like(x))
  np.testing.assert_array_equal(by_x, (v > dead_zone) & (v <= 3))
  assert float(by_phi['scale']) == 0.


def test_rounding_to_nearest_is_what_the_device_does_and_other_dead_zones_are_refused():
  x = jnp.abs(jax.random.normal(jax.random.key(1), (100,)))
  ours, phi = quantize.sparse_codes(4).from_zero(), {'scale': jnp.float32(.2)}
  device = quantize.lsq_plus(4, zero_point=-8)
  np.testing.assert_allclose(ours.apply(phi, x), device.apply(phi, x), rtol=1e-6)
  assert [float(fact) for fact in ours.facts(phi)] == [float(fact) for fact in device.facts(phi)]
  with pytest.raises(EffjaxError, match='sparse_codes: no integer kernel has a dead zone of 0.8 steps'):
    quantize.sparse_codes(4, dead_zone=.8).from_zero().facts(phi)
  with pytest.raises(EffjaxError, match='sparse_codes: dead_zone must be from 0 to 1 of a step, got 2.0'):
    quantize.sparse_codes(4, dead_zone=2.)


def test_zeros_are_finite():
  quantizer = quantize.sparse_codes(2).from_zero()
  phi = quantizer.init(jnp.zeros(5))
  assert np.isfinite(float(phi['scale'])) and not np.any(quantizer.apply(phi, jnp.zeros(5)))


@pytest.mark.parametrize('dead_zone', [.5, .8])
def test_the_auxiliary_input_is_never_above_a_fine_grid(dead_zone):
  random = np.random.default_rng(0)
  y = jnp.asarray(random.integers(0, 4, 300) * .5, jnp.float32)
  a = jnp.asarray(random.normal(size=300) * 2, jnp.float32)
  step = jnp.float32(.5)
  z = np.float64(nearest_inputs(y, a, step, 2, dead_zone, .7))
  value = lambda z: np.asarray(sparse(jnp.asarray(z, jnp.float32), step, 2, dead_zone)[0], np.float64)
  cost = lambda z: (np.float64(y) - value(z))**2 + .7 * (z - np.float64(a))**2
  reached = np.minimum(np.minimum(cost(z - 1e-5), cost(z + 1e-5)), cost(z))  # an open end is not reached
  grid = np.min([cost(np.full(300, g)) for g in np.linspace(-8, 8, 4001)], 0)
  assert (reached <= grid + 1e-4).all()


def test_ternary_weights_come_near_to_the_best_there_are():
  ours, plain, best = [], [], []
  fit = jax.jit(lambda w, x, y, step: quantize.two_step(w, x, y, step, 2))
  for seed in range(8):
    random = np.random.default_rng(seed)
    w, x = np.float32(random.normal(size=(5, 1))), np.float32(np.abs(random.normal(size=(60, 5))))
    step = sparse_step(jnp.asarray(x @ w), 2)
    s = float(step)
    q = lambda z, s=s: np.float32(s * np.where(z > .5 * s, np.clip(np.rint(z / s), 1, 3), 0))
    y = q(x @ w)
    found, scale = fit(jnp.asarray(w), jnp.asarray(x), jnp.asarray(y), step)
    assert set(np.unique(np.asarray(found) / np.asarray(scale))) <= {-1., 0., 1.}
    error = lambda z, y=y, q=q: float(((y - q(z))**2).sum())
    ours.append(error(x @ np.asarray(found)))
    rule = quantize.ternary(per_channel=False)
    plain.append(error(x @ np.asarray(rule.apply(*rule.init(None, jnp.asarray(w)), None))))
    codes = np.array(list(itertools.product([-1., 0., 1.], repeat=5)))
    best.append(min(error(x @ (a * code[:, None])) for code in codes for a in np.linspace(.2, 2., 10)))
  assert np.mean(best) <= np.mean(ours) < np.mean(plain)


def test_shapes_that_do_not_belong_together():
  with pytest.raises(EffjaxError, match=r'two_step: wanted a positive penalty, x of shape \[b, 2\] and y of \[b, 1\]'):
    quantize.two_step(jnp.ones((2, 1)), jnp.ones((4, 3)), jnp.ones((4, 1)), jnp.float32(1), 2)
