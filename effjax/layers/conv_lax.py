"""Convolutions and their gradients as lax computes them."""
import jax
from jax import lax
from jaxtyping import Array, Float

from effjax.layers.conv_shape import Conv


def forward(x: Float[Array, 'n h w cin'], w: Float[Array, 'kh kw each cout'],
            conv: Conv) -> Float[Array, 'n h2 w2 cout']:
  """lax's own.

  >>> conv = Conv((1, 2, 2, 1), (2, 2, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1)
  >>> forward(jax.numpy.arange(4.).reshape(conv.x), jax.numpy.ones(conv.w), conv).item()
  6.0
  """
  return lax.conv_general_dilated(
      x, w, conv.strides, conv.padding, rhs_dilation=conv.dilation, dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=conv.groups, precision=conv.precision)


def input_gradient(g: Float[Array, 'n h2 w2 cout'], w: Float[Array, 'kh kw each cout'],
                   conv: Conv) -> Float[Array, 'n h w cin']:
  """The transpose of lax's own in x.

  >>> conv = Conv((1, 1, 2, 1), (1, 1, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1)
  >>> input_gradient(jax.numpy.ones(conv.x), 2 * jax.numpy.ones(conv.w), conv).ravel()
  Array([2., 2.], dtype=float32)
  """
  return jax.linear_transpose(lambda x: forward(x, w, conv), jax.ShapeDtypeStruct(conv.x, g.dtype))(g)[0]


def kernel_gradient(x: Float[Array, 'n h w cin'], g: Float[Array, 'n h2 w2 cout'],
                    conv: Conv) -> Float[Array, 'kh kw each cout']:
  """The transpose of lax's own in w.

  >>> conv = Conv((1, 1, 2, 1), (1, 1, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1)
  >>> kernel_gradient(jax.numpy.ones(conv.x), jax.numpy.ones(conv.x), conv).item()
  2.0
  """
  return jax.linear_transpose(lambda w: forward(x, w, conv), jax.ShapeDtypeStruct(conv.w, g.dtype))(g)[0]
