"""A mix of channels."""
from jax import lax
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.convolution import DIMENSIONS, conv_general_dilated
from effjax.layers.windows import Pair, pair


def pointwise_conv(x: Float[Array, 'n h w cin'], w: Float[Array, 'kh kw cin cout'], strides: int | Pair = 1, *,
                   precision: lax.PrecisionLike = None, formulation: str | None = None) -> Float[Array, 'n h2 w2 cout']:
  """`y[i, j] = x[s i, s j] w`: one matrix product of all positions.

  Linear in x and in w; derivatives of any order and mode. bfloat16 is summed in float32.

  Args:
    w: of shape [1, 1, cin, cout].
    strides, precision, formulation: as for `depthwise_conv`; 'matmul' instead of 'shifts'.

  Raises:
    EffjaxError: a kernel that is not 1x1; channels that do not fit; strides below 1; an unknown formulation.

  Source: Lin, Chen, Yan, "Network in network", ICLR 2014, arXiv:1312.4400; Howard et al. 2017, survey [8].

  >>> import jax.numpy as jnp
  >>> pointwise_conv(jnp.ones((1, 2, 2, 3)), jnp.ones((1, 1, 3, 1)), 2).ravel()
  Array([3.], dtype=float32)
  """
  if w.shape[:2] != (1, 1):
    raise EffjaxError(f'pointwise_conv: w has shape {w.shape}, wanted [1, 1, cin, cout]: use conv_general_dilated')
  return conv_general_dilated(x, w, pair('pointwise_conv', 'strides', strides), 'VALID', precision=precision,
                              dimension_numbers=DIMENSIONS, formulation=formulation)
