import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.export.reference.int64 import Wide, add, magnitude, right, shifted, times, wide

RANDOM = np.random.default_rng(0)
A, B = (RANDOM.integers(-2 ** 62, 2 ** 62, 300) >> RANDOM.integers(0, 62, 300) for _ in 'ab')


def whole(a: Wide):
  return (np.asarray(a.high).astype(np.int64) << 32) + np.asarray(a.low).astype(np.int64)


def test_constants_and_int32():
  np.testing.assert_array_equal(whole(wide(A)), A)
  assert whole(wide(np.int64(2 ** 31))) == 2 ** 31
  np.testing.assert_array_equal(whole(wide(jnp.int32([-2 ** 31, -1, 0, 2 ** 31 - 1]))), [-2 ** 31, -1, 0, 2 ** 31 - 1])


def test_sums_and_magnitudes():
  np.testing.assert_array_equal(whole(jax.jit(add)(wide(A), wide(B))), A + B)
  np.testing.assert_array_equal(whole(jax.jit(magnitude)(wide(A))), np.abs(A))


@pytest.mark.parametrize('factor', [0, 1, 255, 256, 2 ** 15, 2 ** 16 - 1])
def test_products_wrap_at_64_bits(factor):
  wanted = [(int(a) * factor + 2 ** 63) % 2 ** 64 - 2 ** 63 for a in A]
  np.testing.assert_array_equal(whole(times(wide(A), factor)), wanted)


@pytest.mark.parametrize('by', [0, 1, 15, 31, 32, 33, 47, 63])
def test_shifts(by):
  wanted = (A >> by).astype(np.int32)  # the low word
  np.testing.assert_array_equal(shifted(wide(A), by), wanted)
  if 0 < by < 32:
    np.testing.assert_array_equal(whole(right(wide(A), by)), A >> by)


def test_a_shift_per_element():
  by = np.arange(300) % 64
  np.testing.assert_array_equal(shifted(wide(A), by), (A >> by).astype(np.int32))
