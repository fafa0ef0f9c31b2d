"""A factor per channel."""
import jax
import jax.numpy as jnp
import numpy as np

from effjax.layers import LayerScale


def test_small_at_first_and_a_factor_per_channel():
  x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
  y, variables = LayerScale().init_with_output(jax.random.key(1), x)
  np.testing.assert_allclose(y, np.float64(x) * 1e-6, rtol=1e-6)
  scale = jnp.arange(5.)
  np.testing.assert_array_equal(LayerScale().apply({'params': {'scale': scale}}, x), x * scale[None, None, None])
  assert variables['params']['scale'].dtype == jnp.float32
  assert LayerScale().apply(variables, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
