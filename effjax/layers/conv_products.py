"""1x1 convolutions, with and without groups, by matrix products.

XLA's CPU backend runs these fast where its convolutions are slow. float32 arithmetic inside for 16-bit arrays.
"""
from collections.abc import Callable

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
  y = product(_read(x, conv), w[0, 0], (1, 0), conv)
  return y.reshape(conv.x[0], *conv.size, conv.w[3]).astype(x.dtype)


def matmul_input_gradient(g: Float[Array, 'n h2 w2 cout'], w: Float[Array, '1 1 cin cout'],
                          conv: Conv) -> Float[Array, 'n h w cin']:
  """The rows of g times the transposed kernel, put back where they were read.

  >>> conv = Conv((1, 1, 3, 1), (1, 1, 1, 2), (2, 2), (1, 1), ((0, 0), (0, 0)), 1)
  >>> matmul_input_gradient(jnp.ones((1, 1, 2, 2)), jnp.ones(conv.w), conv).ravel()
  Array([2., 0., 2.], dtype=float32)
  """
  rows = product(g.reshape(-1, conv.w[3]), w[0, 0], (1, 1), conv).astype(g.dtype)
  dx = rows.reshape(conv.x[0], *conv.size, conv.x[3])
  ends = zip(conv.x[1:3], conv.size, conv.strides, conv.padding, strict=True)
  spread = [(-low, n + low - ((out - 1) * s + 1), s - 1) for n, out, s, (low, _) in ends]
  return lax.pad(dx, jnp.zeros((), dx.dtype), ((0, 0, 0), *spread, (0, 0, 0)))


def matmul_kernel_gradient(x: Float[Array, 'n h w cin'], g: Float[Array, 'n h2 w2 cout'],
                           conv: Conv) -> Float[Array, '1 1 cin cout']:
  """The transposed rows of x times those of g: with fewer rows of the result than columns, which XLA runs faster.

  >>> conv = Conv((1, 1, 2, 1), (1, 1, 1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), 1)
  >>> matmul_kernel_gradient(jnp.array([1., 2.]).reshape(conv.x), jnp.ones(conv.x), conv).item()
  3.0
  """
  x, g = _read(x, conv), g.reshape(-1, conv.w[3])
  if conv.w[2] <= conv.w[3]:
    dw = product(x, g, (0, 0), conv)
  else:  # the barrier keeps XLA from taking the transposition back
    dw = lax.optimization_barrier(product(g, x, (0, 0), conv)).T
  return dw.reshape(conv.w).astype(g.dtype)


def dense_forward(x: Float[Array, 'n h w cin'], w: Float[Array, '1 1 each cout'],
                  conv: Conv) -> Float[Array, 'n h2 w2 cout']:
  """One product by a kernel for all channels, zero where a group does not read: with few channels less work than the
  slicing. What is not finite in one group makes the others NaN.

  >>> conv = Conv((1, 1, 1, 4), (1, 1, 2, 2), (1, 1), (1, 1), ((0, 0), (0, 0)), 2)
  >>> dense_forward(jnp.arange(4.).reshape(conv.x), jnp.ones(conv.w), conv).ravel()
  Array([1., 5.], dtype=float32)
  """
  return matmul_forward(x, _block_diagonal(w, conv), _of_one_group(conv))


def dense_input_gradient(g: Float[Array, 'n h2 w2 cout'], w: Float[Array, '1 1 each cout'],
                         conv: Conv) -> Float[Array, 'n h w cin']:
  """The same for the gradient of x.

  >>> conv = Conv((1, 1, 1, 4), (1, 1, 2, 2), (1, 1), (1, 1), ((0, 0), (0, 0)), 2)
  >>> dense_input_gradient(jnp.array([1., 2.]).reshape(1, 1, 1, 2), jnp.ones(conv.w), conv).ravel()
  Array([1., 1., 2., 2.], dtype=float32)
  """
  return matmul_input_gradient(g, _block_diagonal(w, conv), _of_one_group(conv))


def dense_kernel_gradient(x: Float[Array, 'n h w cin'], g: Float[Array, 'n h2 w2 cout'],
                          conv: Conv) -> Float[Array, '1 1 each cout']:
  """The blocks on the diagonal of the gradient of a kernel for all channels.

  >>> conv = Conv((1, 1, 1, 4), (1, 1, 2, 2), (1, 1), (1, 1), ((0, 0), (0, 0)), 2)
  >>> dense_kernel_gradient(jnp.arange(4.).reshape(conv.x), jnp.ones((1, 1, 1, 2)), conv)[0, 0]
  Array([[0., 2.],
         [1., 3.]], dtype=float32)
  """
  dw = matmul_kernel_gradient(x, g, _of_one_group(conv)).reshape(conv.groups, conv.w[2], conv.groups, -1)
  return jnp.stack([dw[i, :, i] for i in range(conv.groups)], 1).reshape(conv.w)


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


def product(a: Float[Array, 'i j'], b: Float[Array, 'k l'], axes: tuple[int, int], conv: Conv) -> Float[Array, 'm n']:
  """The matrix product that contracts these axes, in float32 at least.

  >>> product(jnp.ones((2, 3)), jnp.ones((2, 4)), (0, 0), Conv((), (), (), (), (), 1)).shape
  (3, 4)
  """
  return lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((), ())), precision=conv.precision,
                         preferred_element_type=wide(a).dtype)


def _of_one_group(conv):
  return conv._replace(w=(1, 1, conv.x[3], conv.w[3]), groups=1)


def _block_diagonal(w, conv):
  """The kernel [1, 1, cin, cout] that does the same without groups."""
  blocks = w.reshape(conv.w[2], conv.groups, -1).transpose(1, 0, 2)
  same = jnp.eye(conv.groups, dtype=bool)[:, None, :, None]
  return jnp.where(same, blocks[:, :, None], jnp.zeros((), w.dtype)).reshape(1, 1, conv.x[3], conv.w[3])


def _read(x, conv):
  """The entries that a 1x1 kernel reads, as rows."""
  x = jnp.pad(x, ((0, 0), *conv.padding, (0, 0)))
  return x[:, ::conv.strides[0], ::conv.strides[1]].reshape(-1, x.shape[-1])
