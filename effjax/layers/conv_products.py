"""1x1 and grouped convolutions by matrix products, which XLA's CPU backend runs fast where its convolutions are slow.

float32 arithmetic inside for 16-bit arrays.
"""
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from effjax.layers.conv_shape import Conv
from effjax.layers.wide import wide


def matmul_forward(x: Float[Array, 'n h w cin'], w: Float[Array, '1 1 cin cout'],
                   conv: Conv) -> Float[Array, 'n h2 w2 cout']:
  """A row for each entry of the image that the kernel reads, times the kernel.

  >>> conv = Conv((1, 2, 2, 3), (1, 1, 3, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1)
  >>> matmul_forward(jnp.ones(conv.x), jnp.ones(conv.w), conv).ravel()
  Array([3., 3., 3., 3.], dtype=float32)
  """
  y = _product(_read(x, conv), w[0, 0], (1, 0), conv)
  return y.reshape(conv.x[0], *conv.size, conv.w[3]).astype(x.dtype)


def matmul_input_gradient(g: Float[Array, 'n h2 w2 cout'], w: Float[Array, '1 1 cin cout'],
                          conv: Conv) -> Float[Array, 'n h w cin']:
  """The rows of g times the transposed kernel, put back where they were read.

  >>> conv = Conv((1, 1, 3, 1), (1, 1, 1, 2), (2, 2), (1, 1), ((0, 0), (0, 0)), 1)
  >>> matmul_input_gradient(jnp.ones((1, 1, 2, 2)), jnp.ones(conv.w), conv).ravel()
  Array([2., 0., 2.], dtype=float32)
  """
  rows = _product(g.reshape(-1, conv.w[3]), w[0, 0], (1, 1), conv).astype(g.dtype)
  dx = rows.reshape(conv.x[0], *conv.size, conv.x[3])
  ends = zip(conv.x[1:3], conv.size, conv.strides, conv.padding, strict=True)
  spread = [(-low, n + low - ((out - 1) * s + 1), s - 1) for n, out, s, (low, _) in ends]
  return lax.pad(dx, jnp.zeros((), dx.dtype), ((0, 0, 0), *spread, (0, 0, 0)))


def matmul_kernel_gradient(x: Float[Array, 'n h w cin'], g: Float[Array, 'n h2 w2 cout'],
                           conv: Conv) -> Float[Array, '1 1 cin cout']:
  """The transposed rows of x times those of g.

  >>> conv = Conv((1, 1, 2, 1), (1, 1, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1)
  >>> matmul_kernel_gradient(jnp.array([1., 2.]).reshape(conv.x), jnp.ones(conv.x), conv).item()
  3.0
  """
  return _product(_read(x, conv), g.reshape(-1, conv.w[3]), (0, 0), conv).reshape(conv.w).astype(g.dtype)


def split(one: Callable[..., Array], first: Float[Array, '...'], second: Float[Array, '...'],
          conv: Conv) -> Float[Array, '...']:
  """`one(first, second, conv)` of each group by itself, concatenated.

  >>> conv = Conv((1, 1, 1, 4), (1, 1, 2, 2), (1, 1), (1, 1), ((0, 0), (0, 0)), 2)
  >>> split(matmul_forward, jnp.arange(4.).reshape(conv.x), jnp.ones(conv.w), conv).ravel()
  Array([1., 5.], dtype=float32)
  """
  each = conv._replace(x=(*conv.x[:3], conv.x[3] // conv.groups), w=(*conv.w[:3], conv.w[3] // conv.groups), groups=1)
  groups = zip(*(jnp.split(wide(a), conv.groups, -1) for a in (first, second)), strict=True)
  return jnp.concatenate([one(*group, each) for group in groups], -1).astype(first.dtype)


def rows_forward(x: Float[Array, 'n h w cin'], w: Float[Array, 'kh kw each cout'],
                 conv: Conv) -> Float[Array, 'n h2 w2 cout']:
  """For each group one product of the rows of x, with what the kernel's columns read side by side, and all of the
  kernel's rows; these are shifted and summed. Image by image, which stays in the cache. Strides 1.

  >>> conv = Conv((1, 2, 2, 4), (2, 2, 2, 2), (1, 1), (1, 1), ((0, 0), (0, 0)), 2)
  >>> rows_forward(jnp.ones(conv.x), jnp.ones(conv.w), conv).ravel()
  Array([8., 8.], dtype=float32)
  """
  (h, w_), (kh, kw, each, cout), step = conv.size, conv.w, conv.dilation[0]
  kernels = wide(w).reshape(kh, kw * each, conv.groups, -1).transpose(2, 1, 0, 3).reshape(conv.groups, kw * each, -1)

  def image(i, y):
    sums = []
    for rows, kernel in zip(_columns(x, i, conv), kernels, strict=True):
      product = _product(rows, kernel, (1, 0), conv).reshape(-1, w_, kh, cout // conv.groups)
      sums.append(sum(product[a * step:a * step + h, :, a] for a in range(kh)))
    return lax.dynamic_update_slice(y, jnp.concatenate(sums, -1)[None].astype(y.dtype), (i, 0, 0, 0))

  return lax.fori_loop(0, conv.x[0], image, jnp.zeros_like(x, shape=(conv.x[0], h, w_, cout)))


def rows_input_gradient(g: Float[Array, 'n h2 w2 cout'], w: Float[Array, 'kh kw each cout'],
                        conv: Conv) -> Float[Array, 'n h w cin']:
  """`rows_forward` of g, by the kernel turned by 180 degrees.

  >>> conv = Conv((1, 2, 2, 4), (2, 2, 2, 2), (1, 1), (1, 1), ((0, 0), (0, 0)), 2)
  >>> rows_input_gradient(jnp.ones((1, 1, 1, 2)), jnp.ones(conv.w), conv).sum().item()
  16.0
  """
  turned = w[::-1, ::-1].reshape(*conv.w[:3], conv.groups, -1).transpose(0, 1, 4, 3, 2)
  turned = turned.reshape(*conv.w[:2], -1, conv.x[3])
  ends = zip(conv.x[1:3], conv.size, conv.spans, conv.padding, strict=True)
  low, high = ((span - 1 - low, n - out + low) for n, out, span, (low, _) in ends)
  return rows_forward(g, turned, conv._replace(x=g.shape, w=turned.shape, padding=(low, high)))


def rows_kernel_gradient(x: Float[Array, 'n h w cin'], g: Float[Array, 'n h2 w2 cout'],
                         conv: Conv) -> Float[Array, 'kh kw each cout']:
  """For each group one product: what the kernel's columns read side by side, transposed, times g shifted down by each
  row of the kernel.

  >>> conv = Conv((1, 2, 2, 4), (2, 2, 2, 2), (1, 1), (1, 1), ((0, 0), (0, 0)), 2)
  >>> rows_kernel_gradient(jnp.ones(conv.x), jnp.ones((1, 1, 1, 2)), conv).sum().item()
  16.0
  """
  (h, _), (kh, kw, each, cout), step = conv.size, conv.w, conv.dilation[0]
  reach = conv.spans[0] - 1

  def image(i, sums):
    part = lax.dynamic_slice(wide(g), (i, 0, 0, 0), (1, *g.shape[1:]))[0]
    part = lax.optimization_barrier(jnp.pad(part, ((reach, reach), (0, 0), (0, 0))))
    shifted = [part[reach - a * step:2 * reach + h - a * step] for a in range(kh)]
    shifted = zip(*(jnp.split(each, conv.groups, -1) for each in shifted), strict=True)
    shifted = [jnp.concatenate(group, -1).reshape(-1, kh * cout // conv.groups) for group in shifted]
    groups = zip(sums, _columns(x, i, conv), shifted, strict=True)
    return tuple(total + _product(rows, g, (0, 0), conv) for total, rows, g in groups)

  zero = jnp.zeros_like(wide(g), shape=(kw * each, kh * cout // conv.groups))
  dw = jnp.stack(lax.fori_loop(0, conv.x[0], image, (zero,) * conv.groups))
  dw = dw.reshape(conv.groups, kw, each, kh, -1).transpose(3, 1, 2, 0, 4)
  return dw.reshape(conv.w).astype(g.dtype)


def _columns(x, i, conv):
  """Of an image, padded, for each group: a row for each entry, with what the kernel's columns read side by side."""
  one = lax.dynamic_slice(wide(x), (i, 0, 0, 0), (1, *x.shape[1:]))[0]
  one = lax.optimization_barrier(jnp.pad(one, (*conv.padding, (0, 0))))
  starts = range(0, conv.w[1] * conv.dilation[1], conv.dilation[1])
  shifted = [jnp.split(one[:, start:start + conv.size[1]], conv.groups, -1) for start in starts]
  return [jnp.concatenate(group, -1).reshape(-1, conv.w[1] * conv.w[2]) for group in zip(*shifted, strict=True)]


def _read(x, conv):
  """The entries that a 1x1 kernel reads, as rows."""
  x = jnp.pad(x, ((0, 0), *conv.padding, (0, 0)))
  return x[:, ::conv.strides[0], ::conv.strides[1]].reshape(-1, x.shape[-1])


def _product(a, b, axes, conv):
  """The matrix product that contracts these axes."""
  return lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((), ())), precision=conv.precision,
                         preferred_element_type=wide(a).dtype)


def lax_forward(x: Float[Array, 'n h w cin'], w: Float[Array, 'kh kw each cout'],
                conv: Conv) -> Float[Array, 'n h2 w2 cout']:
  """lax's own.

  >>> conv = Conv((1, 2, 2, 1), (2, 2, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1)
  >>> lax_forward(jnp.arange(4.).reshape(conv.x), jnp.ones(conv.w), conv).item()
  6.0
  """
  return lax.conv_general_dilated(
      x, w, conv.strides, conv.padding, rhs_dilation=conv.dilation, dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=conv.groups, precision=conv.precision)


def lax_input_gradient(g: Float[Array, 'n h2 w2 cout'], w: Float[Array, 'kh kw each cout'],
                       conv: Conv) -> Float[Array, 'n h w cin']:
  """The transpose of lax's own in x.

  >>> conv = Conv((1, 1, 2, 1), (1, 1, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1)
  >>> lax_input_gradient(jnp.ones(conv.x), 2 * jnp.ones(conv.w), conv).ravel()
  Array([2., 2.], dtype=float32)
  """
  return jax.linear_transpose(lambda x: lax_forward(x, w, conv), jax.ShapeDtypeStruct(conv.x, g.dtype))(g)[0]


def lax_kernel_gradient(x: Float[Array, 'n h w cin'], g: Float[Array, 'n h2 w2 cout'],
                        conv: Conv) -> Float[Array, 'kh kw each cout']:
  """The transpose of lax's own in w.

  >>> conv = Conv((1, 1, 2, 1), (1, 1, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1)
  >>> lax_kernel_gradient(jnp.ones(conv.x), jnp.ones(conv.x), conv).item()
  2.0
  """
  return jax.linear_transpose(lambda w: lax_forward(x, w, conv), jax.ShapeDtypeStruct(conv.w, g.dtype))(g)[0]
