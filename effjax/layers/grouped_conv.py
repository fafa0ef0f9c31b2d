"""Convolutions of groups of channels."""
from collections.abc import Sequence

from jax import lax
from jaxtyping import Array, Float

from effjax.layers.convolution import DIMENSIONS, conv_general_dilated
from effjax.layers.windows import Pair, pair


def grouped_conv(x: Float[Array, 'n h w cin'], w: Float[Array, 'kh kw each cout'], groups: int,
                 strides: int | Pair = 1, padding: str | Sequence[Pair] = 'SAME', *, dilation: int | Pair = 1,
                 precision: lax.PrecisionLike = None, formulation: str | None = None) -> Float[Array, 'n h2 w2 cout']:
  """The convolution of each of `groups` runs of channels by itself, concatenated: a block-diagonal kernel.

  Linear in x and in w; derivatives of any order and mode.

  Args:
    w: of shape [kh, kw, cin / groups, cout].
    groups: divides cin and cout.
    strides, padding, dilation, precision, formulation: as for `depthwise_conv`; 'rows' (strides 1) or 'split'
      instead of 'shifts'.

  Raises:
    EffjaxError: channels that do not fit; strides or dilation below 1; an unknown formulation.

  Source: Krizhevsky et al. 2012, survey [18]; Xie et al., "ResNeXt", CVPR 2017, survey [19].

  >>> import jax.numpy as jnp
  >>> grouped_conv(jnp.ones((1, 4, 4, 4)), jnp.ones((1, 1, 2, 6)), 2)[0, 0, 0]
  Array([2., 2., 2., 2., 2., 2.], dtype=float32)
  """
  strides, dilation = pair('grouped_conv', 'strides', strides), pair('grouped_conv', 'dilation', dilation)
  return conv_general_dilated(x, w, strides, padding, rhs_dilation=dilation, dimension_numbers=DIMENSIONS,
                              feature_group_count=groups, precision=precision, formulation=formulation)
