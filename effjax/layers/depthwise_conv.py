"""A filter for each channel."""
from collections.abc import Sequence

from jax import lax
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.convolution import DIMENSIONS, conv_general_dilated
from effjax.layers.windows import Pair, pair


def depthwise_conv(x: Float[Array, 'n h w cin'], w: Float[Array, 'kh kw one cout'], strides: int | Pair = 1,
                   padding: str | Sequence[Pair] = 'SAME', *, dilation: int | Pair = 1,
                   precision: lax.PrecisionLike = None, formulation: str | None = None) -> Float[Array, 'n h2 w2 cout']:
  """`y[i, j, c] = sum_ab x[s i + d a, s j + d b, c // m] w[a, b, 0, c]` of the padded x, `m = cout / cin`.

  Linear in x and in w; derivatives of any order and mode. bfloat16 is computed in float32.

  Args:
    w: of shape [kh, kw, 1, cout], cout a multiple of cin.
    strides, dilation: one number, or (height, width).
    padding: 'SAME', 'VALID' or ((top, bottom), (left, right)).
    precision: of lax's convolution, where that is what runs.
    formulation: 'shifts' or 'lax', for measurements; None takes the fastest on a CPU, and lax elsewhere.

  Raises:
    EffjaxError: a kernel that is not of this shape; strides or dilation below 1; an unknown formulation.

  Source: Howard et al., "MobileNets", 2017, arXiv:1704.04861, survey [8]; Chollet, "Xception", CVPR 2017, survey [56].

  >>> import jax.numpy as jnp
  >>> depthwise_conv(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 4)), padding='VALID')[0, 0, 0]
  Array([9., 9., 9., 9.], dtype=float32)
  """
  if w.ndim != 4 or w.shape[2] != 1 or w.shape[3] % x.shape[-1]:
    raise EffjaxError(f'depthwise_conv: w has shape {w.shape}, wanted [kh, kw, 1, a multiple of {x.shape[-1]}], the '
                      'channels of x: a filter for each channel')
  strides, dilation = pair('depthwise_conv', 'strides', strides), pair('depthwise_conv', 'dilation', dilation)
  return conv_general_dilated(x, w, strides, padding, rhs_dilation=dilation, dimension_numbers=DIMENSIONS,
                              feature_group_count=x.shape[-1], precision=precision, formulation=formulation)
