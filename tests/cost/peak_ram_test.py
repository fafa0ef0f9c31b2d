"""The smooth peak against float64 NumPy and its bounds; the exact one is tested in cost_test.py."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import cost, graph
from effjax.errors import EffjaxError
from effjax.reparam import CHANNELS, Fact

WIDTHS = (4, 6, 5, 7, 2)
STEPS = np.array([a + b for a, b in zip(WIDTHS, WIDTHS[1:])], np.float64)  # alive at each product: 10, 11, 12, 9
PARAMS = {f'{i}': jnp.ones(s) for i, s in enumerate(zip(WIDTHS, WIDTHS[1:]))}
SMOOTH = (.01, .05, .3)


def chain(p, x):
  for i in range(len(p)):
    x = jax.nn.relu(x @ p[f'{i}'])
  return x


def profile(factor=1):
  params = {name: jnp.ones((factor * a, factor * b)) for name, (a, b) in
            ((name, w.shape) for name, w in PARAMS.items())}
  return graph.profile(chain, params, jnp.ones((1, factor * WIDTHS[0])))


@pytest.mark.parametrize('smooth', SMOOTH)
def test_value_and_gradient_are_those_of_the_power_norm(smooth):
  found = profile()
  p = 1 / smooth
  want = STEPS.max() * np.sum((STEPS / STEPS.max())**p)**smooth
  np.testing.assert_allclose(cost.peak_ram(found, {}, smooth=smooth), want, rtol=1e-5)
  np.testing.assert_allclose(cost.peak_ram(found, {}, smooth=smooth, bytes_per_entry=4), 4 * want, rtol=1e-5)
  share = (STEPS / want)**(p - 1)  # d norm / d step
  got = jax.grad(lambda k: cost.peak_ram(found, {CHANNELS: Fact(keep=k)}, smooth=smooth))(jnp.ones(6 + 5 + 7))
  want = np.concatenate([np.full(n, share[i] + share[i + 1]) for i, n in enumerate(WIDTHS[1:-1])])
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-7)
  assert (np.asarray(got) > 0).all() or smooth == .01


@pytest.mark.parametrize('smooth', SMOOTH)
def test_it_bounds_the_maximum_and_is_scale_free(smooth):
  exact, value = float(cost.peak_ram(profile(), {})), float(cost.peak_ram(profile(), {}, smooth=smooth))
  assert exact == STEPS.max()
  assert exact < value <= len(STEPS)**smooth * exact * (1 + 1e-6)
  np.testing.assert_allclose(cost.peak_ram(profile(50), {}, smooth=smooth), 50 * value, rtol=1e-5)


def test_it_tends_to_the_exact_peak():
  values = [float(cost.peak_ram(profile(), {}, smooth=s)) for s in (.3, .1, .03, .01, .001)]
  assert values == sorted(values, reverse=True)
  np.testing.assert_allclose(values[-1], STEPS.max(), rtol=1e-6)
  np.testing.assert_array_equal(
    jax.grad(lambda k: cost.peak_ram(profile(), {CHANNELS: Fact(keep=k)}))(jnp.ones(18)),
    np.concatenate([np.zeros(6), np.ones(5 + 7)]))


def test_nothing_alive_is_nothing_with_finite_gradients():
  value = lambda k: cost.peak_ram(profile(), {CHANNELS: Fact(keep=k)}, smooth=.1)
  assert np.isfinite(jax.grad(value)(jnp.zeros(18))).all()


@pytest.mark.parametrize('smooth', [-.1, 1, 2.])
def test_errors(smooth):
  with pytest.raises(EffjaxError, match=f'peak_ram: smooth must be at least 0 and below 1, got {smooth}'):
    cost.peak_ram(profile(), {}, smooth=smooth)
