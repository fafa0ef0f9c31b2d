import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np

from effjax.export.reference.rounding import fixed_point, fixed_rounding


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(st.integers(-2 ** 27, 2 ** 27), st.floats(1e-13, 1.9), st.booleans())
def test_fixed_point_rounding_is_that_of_gemmlowp(acc, ratio, away):
  multiplier, exponent = fixed_point(np.array([ratio]))
  product = int(acc) * 2 ** max(int(exponent[0]), 0) * int(multiplier[0])
  high, shift = (product + 2 ** 30) // 2 ** 31, max(-int(exponent[0]), 0)
  half = 2 ** shift // 2
  expected = (high + half) >> shift if high >= 0 or not away else -((-high + half) >> shift)
  hypothesis.assume(abs(acc * max(ratio, 1) * 2) < 2 ** 30)
  assert int(fixed_rounding(jnp.array([acc]), multiplier, exponent, np.array([away]))[0]) == expected
