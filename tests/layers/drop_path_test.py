"""Whole examples, at the stated rate, with the mean kept."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.layers import drop_path


@pytest.mark.parametrize('rate', [.2, .5])
def test_examples_are_kept_whole_and_the_mean_stays(rate):
  x = jax.random.normal(jax.random.key(1), (20_000, 2, 1)) + 1
  y = drop_path(jax.random.key(0), x, rate)
  kept = np.asarray(y != 0).all((1, 2))
  np.testing.assert_allclose(y[kept], x[kept] / (1 - rate), rtol=1e-6)
  assert (np.asarray(y[~kept]) == 0).all()
  assert abs(kept.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / len(x))


def test_rate_may_be_traced_and_zero_is_the_identity():
  x, traces = jnp.arange(6.).reshape(3, 2), []

  @jax.jit
  def dropped(rate):
    traces.append(rate)
    return drop_path(jax.random.key(0), x, rate)

  np.testing.assert_array_equal(dropped(jnp.float32(0)), x)
  assert (np.asarray(dropped(jnp.float32(.9))) == 0).any() and len(traces) == 1
