"""Max pooling that is fast on CPUs too, differentiable in every mode and order."""
from collections.abc import Sequence

from jaxtyping import Array, Num

from effjax.layers import pool_primitives
from effjax.layers.windows import Pair, windows


def max_pool(x: Num[Array, 'n h w c'], window: int | Pair, strides: int | Pair | None = None,
             padding: str | Sequence[Pair] = 'VALID', *,
             formulation: str | None = None) -> Num[Array, 'n h2 w2 c']:
  """`y[n, i, j, c] = max_ab x[n, s i + a, s j + b, c]` of x padded with -inf.

  The derivative follows the first maximum of a window, in the order of its rows; padding comes first where it is as
  large (all of the window is -inf), as in `lax`. A NaN makes the maximum NaN.

  Args:
    window, strides: one number or (height, width); strides None: the window.
    padding: 'SAME', 'VALID', or ((top, bottom), (left, right)); `ceil_mode` makes the one of that name elsewhere.
    formulation: 'lax', 'shifts' (maxima of shifted slices, with a derivative of the same kind; floats only), or None:
      on the CPU shifts for windows of up to 81 entries, else lax.

  Raises:
    EffjaxError: windows that do not fit, a padding of another form, a formulation that is unknown or does not
      fit.

  >>> import jax, jax.numpy as jnp
  >>> x = jnp.array([[1., 2., 2.], [0., 1., 3.]]).reshape(1, 2, 3, 1)
  >>> max_pool(x, 2, 1).ravel()
  Array([2., 3.], dtype=float32)
  >>> jax.grad(lambda x: max_pool(x, 2, 1).sum())(x).reshape(2, 3)
  Array([[0., 1., 0.],
         [0., 0., 1.]], dtype=float32)
  """
  found = windows('max_pool', x.shape, window, strides, padding)
  return pool_primitives.bind(pool_primitives.reduce_window_max, x, found, formulation)
