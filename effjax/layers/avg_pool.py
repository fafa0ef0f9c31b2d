"""Average pooling that is fast on CPUs too, differentiable in every mode and order."""
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from effjax.layers import pool_primitives
from effjax.layers.windows import Pair, windows


def avg_pool(x: Num[Array, 'n h w c'], window: int | Pair, strides: int | Pair | None = None,
             padding: str | Sequence[Pair] = 'VALID', *, count_padding: bool = True,
             formulation: str | None = None) -> Float[Array, 'n h2 w2 c']:
  """`y[n, i, j, c] = sum_ab x[n, s i + a, s j + b, c] / count[i, j]` of x padded with zeros.

  Args:
    window, strides: one number or (height, width); strides None: the window.
    padding: 'SAME', 'VALID', or ((top, bottom), (left, right)); `ceil_mode` makes the one of that name elsewhere.
    count_padding: the count is that of the window's entries, else of those that are in x.
    formulation: 'lax', 'shifts' (sums of shifted slices; floats only), or None: on the CPU shifts for windows of up to
      81 entries, except for sums with both padding and strides, else lax.

  Raises:
    EffjaxError: windows that do not fit, a padding of another form, a formulation that is unknown or does not
      fit.

  >>> avg_pool(jnp.arange(4.).reshape(1, 2, 2, 1), 2).item()
  1.5
  >>> avg_pool(jnp.ones((1, 3, 3, 1)), 2, 2, 'SAME').ravel(), avg_pool(jnp.ones((1, 3, 3, 1)), 2, 2, 'SAME',
  ...                                                                 count_padding=False).ravel()
  (Array([1.  , 0.5 , 0.5 , 0.25], dtype=float32), Array([1., 1., 1., 1.], dtype=float32))
  """
  found = windows('avg_pool', x.shape, window, strides, padding)
  pooled = lambda x: pool_primitives.bind(pool_primitives.reduce_window_sum, x, found, formulation)
  if count_padding or not any(map(any, found.padding)):
    return pooled(x) / jnp.asarray(found.window[0] * found.window[1], x.dtype)
  return pooled(x) / pooled(jnp.ones((1, *x.shape[1:3], 1), x.dtype))
