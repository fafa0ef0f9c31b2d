"""Grouped convolutions by matrix products over the columns of the kernel.

float32 arithmetic inside for 16-bit arrays.
"""
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from effjax.layers.conv_products import product
from effjax.layers.conv_shape import Conv
from effjax.layers.wide import wide


def forward(x: Float[Array, 'n h w cin'], w: Float[Array, 'kh kw each cout'],
            conv: Conv) -> Float[Array, 'n h2 w2 cout']:
  """For each group one product of the rows of x, with what the kernel's columns read side by side, and all of the
  kernel's rows; these are shifted and summed. Image by image, which stays in the cache. Strides 1.

  >>> conv = Conv((1, 2, 2, 4), (2, 2, 2, 2), (1, 1), (1, 1), ((0, 0), (0, 0)), 2)
  >>> forward(jnp.ones(conv.x), jnp.ones(conv.w), conv).ravel()
  Array([8., 8.], dtype=float32)
  """
  (h, w_), (kh, kw, each, cout), step = conv.size, conv.w, conv.dilation[0]
  kernels = wide(w).reshape(kh, kw * each, conv.groups, -1).transpose(2, 1, 0, 3).reshape(conv.groups, kw * each, -1)

  def image(i, y):
    sums = []
    for rows, kernel in zip(_columns(x, i, conv), kernels, strict=True):
      products = product(rows, kernel, (1, 0), conv).reshape(-1, w_, kh, cout // conv.groups)
      sums.append(sum(products[a * step:a * step + h, :, a] for a in range(kh)))
    return lax.dynamic_update_slice(y, jnp.concatenate(sums, -1)[None].astype(y.dtype), (i, 0, 0, 0))

  return lax.fori_loop(0, conv.x[0], image, jnp.zeros_like(x, shape=(conv.x[0], h, w_, cout)))


def input_gradient(g: Float[Array, 'n h2 w2 cout'], w: Float[Array, 'kh kw each cout'],
                   conv: Conv) -> Float[Array, 'n h w cin']:
  """`forward` of g, by the kernel turned by 180 degrees.

  >>> conv = Conv((1, 2, 2, 4), (2, 2, 2, 2), (1, 1), (1, 1), ((0, 0), (0, 0)), 2)
  >>> input_gradient(jnp.ones((1, 1, 1, 2)), jnp.ones(conv.w), conv).sum().item()
  16.0
  """
  turned = w[::-1, ::-1].reshape(*conv.w[:3], conv.groups, -1).transpose(0, 1, 4, 3, 2)
  turned = turned.reshape(*conv.w[:2], -1, conv.x[3])
  ends = zip(conv.x[1:3], conv.size, conv.spans, conv.padding, strict=True)
  low, high = ((span - 1 - low, n - out + low) for n, out, span, (low, _) in ends)
  return forward(g, turned, conv._replace(x=g.shape, w=turned.shape, padding=(low, high)))


def kernel_gradient(x: Float[Array, 'n h w cin'], g: Float[Array, 'n h2 w2 cout'],
                    conv: Conv) -> Float[Array, 'kh kw each cout']:
  """For each group one product: what the kernel's columns read side by side, transposed, times g shifted down by each
  row of the kernel.

  >>> conv = Conv((1, 2, 2, 4), (2, 2, 2, 2), (1, 1), (1, 1), ((0, 0), (0, 0)), 2)
  >>> kernel_gradient(jnp.ones(conv.x), jnp.ones((1, 1, 1, 2)), conv).sum().item()
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
    return tuple(total + product(rows, g, (0, 0), conv) for total, rows, g in groups)

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
