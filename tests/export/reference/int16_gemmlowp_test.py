import jax.numpy as jnp
import numpy as np

from effjax.export.reference.int16_gemmlowp import logistic, tanh

CODES = np.arange(-2 ** 15, 2 ** 15)


def test_they_are_the_functions_at_codes_of_3_integer_bits():
  x = CODES / 2 ** 12
  assert np.abs(np.asarray(logistic(jnp.asarray(CODES, jnp.int32))) / 2 ** 15 - 1 / (1 + np.exp(-x))).max() < 1e-3
  assert np.abs(np.asarray(tanh(jnp.asarray(CODES, jnp.int32))) / 2 ** 15 - np.tanh(x)).max() < 1e-3


def test_they_are_symmetric():
  x = jnp.arange(1, 2 ** 15, dtype=jnp.int32)
  np.testing.assert_array_equal(logistic(-x), 2 ** 15 - 1 - logistic(x))
  np.testing.assert_array_equal(tanh(-x), -tanh(x))
  assert logistic(jnp.int32([0])) == 2 ** 14 and tanh(jnp.int32([0])) == 0
