"""Convolutions written so that XLA's CPU backend runs them fast, and which of them it runs fastest."""
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pair = tuple[int, int]


class Conv(NamedTuple):
  """A convolution of NHWC images by an HWIO kernel: shapes, strides, dilation, padding, groups."""
  x: tuple[int, ...]
  w: tuple[int, ...]
  strides: Pair
  dilation: Pair
  padding: tuple[Pair, Pair]
  groups: int
  precision: Any = None

  @classmethod
  def of(cls, x: tuple[int, ...], w: tuple[int, ...], params: dict[str, Any]) -> 'Conv':
    """With the parameters that lax's convolution has."""
    return cls(tuple(x), tuple(w), tuple(params['window_strides']), tuple(params['rhs_dilation']),
               tuple(map(tuple, params['padding'])), params['feature_group_count'], params['precision'])

  @property
  def depthwise(self) -> bool:
    """Whether each output channel reads one input channel."""
    return self.w[2] == 1

  @property
  def size(self) -> Pair:
    """Height and width of the output."""
    ends = zip(self.x[1:3], self.w[:2], self.strides, self.dilation, self.padding, strict=True)
    h, w = ((n + sum(p) - (k - 1) * d - 1) // s + 1 for n, k, s, d, p in ends)
    return h, w


class Formulation(NamedTuple):
  """fits(conv); forward(x, w, conv) -> y; input_gradient(g, w, conv) -> dx; kernel_gradient(x, g, conv) -> dw."""
  fits: Callable[[Conv], bool]
  forward: Callable
  input_gradient: Callable
  kernel_gradient: Callable


# --- depthwise: sums of shifted slices ----------------------------------------------------------------------------

def _wide(x):
  return x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)


def _pad(x, spatial):
  """Kept from being computed again for every tap."""
  return lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *spatial, (0, 0, 0))))


def _taps(x: Array, conv: Conv, strides: Pair, size: Pair) -> Iterator[Array]:
  """The slices of the padded x that each tap of the kernel reads."""
  for a in range(conv.w[0]):
    for b in range(conv.w[1]):
      start = (0, a * conv.dilation[0], b * conv.dilation[1], 0)
      ends = (x.shape[0], *(i + s * (n - 1) + 1 for i, s, n in zip(start[1:3], strides, size)), x.shape[3])
      yield lax.slice(x, start, ends, (1, *strides, 1))


def _repeated(x, conv):
  """Each channel as often as it has outputs."""
  multiplier = conv.w[3] // conv.x[3]
  return x if multiplier == 1 else jnp.repeat(x, multiplier, -1)


def shifts_forward(x: Array, w: Array, conv: Conv) -> Array:
  """`y[i, j, c] = sum_ab x[s i + d a, s j + d b, c] w[a, b, c]`, fused into one loop."""
  x, weights = _pad(_repeated(_wide(x), conv), [(*p, 0) for p in conv.padding]), _wide(w).reshape(-1, 1, 1, 1, conv.w[3])
  products = [tap * weights[i] for i, tap in enumerate(_taps(x, conv, conv.strides, conv.size))]
  return functools.reduce(jnp.add, products).astype(w.dtype)


def shifts_input_gradient(g: Array, w: Array, conv: Conv) -> Array:
  """The same sum over the spread and padded g, with the kernel turned by 180 degrees."""
  turned, weights = _wide(g), _wide(w)[::-1, ::-1].reshape(-1, 1, 1, 1, conv.w[3])
  ends = zip(conv.x[1:3], conv.size, conv.w[:2], conv.strides, conv.dilation, conv.padding, strict=True)
  spread = [((k - 1) * d - low, n + low - ((out - 1) * s + 1), s - 1) for n, out, k, s, d, (low, _) in ends]
  taps = _taps(_pad(turned, spread), conv, (1, 1), conv.x[1:3])
  dx = functools.reduce(jnp.add, [tap * weights[i] for i, tap in enumerate(taps)])
  multiplier = conv.w[3] // conv.x[3]
  dx = dx if multiplier == 1 else dx.reshape(*dx.shape[:3], conv.x[3], multiplier).sum(-1)
  return dx.astype(g.dtype)


def shifts_kernel_gradient(x: Array, g: Array, conv: Conv) -> Array:
  """One reduction with a sum for each tap: first over height and width, in parallel over images, then over these."""
  padded, wide = _pad(_repeated(_wide(x), conv), [(*p, 0) for p in conv.padding]), _wide(g)
  taps = [tap * wide for tap in _taps(padded, conv, conv.strides, conv.size)]
  add = lambda left, right: tuple(a + b for a, b in zip(left, right, strict=True))
  zero = jnp.zeros((), wide.dtype)
  sums = lax.reduce(tuple(taps), (zero,) * len(taps), add, (0, 1, 2))
  return jnp.stack(sums).reshape(conv.w).astype(g.dtype)


# --- 1x1: matrix products -----------------------------------------------------------------------------------------

def _rows(x, conv):
  """The entries that a 1x1 kernel reads, as rows."""
  if conv.strides != (1, 1) or any(map(any, conv.padding)):
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*p, 0) for p in conv.padding), (0, 0, 0)))
    x = x[:, ::conv.strides[0], ::conv.strides[1]]
  return x.reshape(-1, x.shape[-1])


def _product(a, b, conv):
  return jnp.matmul(a, b, precision=conv.precision, preferred_element_type=jnp.promote_types(a.dtype, jnp.float32))


def matmul_forward(x: Array, w: Array, conv: Conv) -> Array:
  """A row for each entry of the image, times the kernel."""
  return _product(_rows(x, conv), w[0, 0], conv).reshape(conv.x[0], *conv.size, conv.w[3]).astype(w.dtype)


def matmul_input_gradient(g: Array, w: Array, conv: Conv) -> Array:
  """The rows of g times the transposed kernel, put back where they were read."""
  rows = _product(g.reshape(-1, conv.w[3]), w[0, 0].T, conv).astype(g.dtype)
  dx = rows.reshape(conv.x[0], *conv.size, conv.x[3])
  if dx.shape == conv.x:
    return dx
  ends = zip(conv.x[1:3], conv.size, conv.strides, conv.padding, strict=True)
  spread = [(-low, n + low - ((out - 1) * s + 1), s - 1) for n, out, s, (low, _) in ends]
  return lax.pad(dx, jnp.zeros((), dx.dtype), ((0, 0, 0), *spread, (0, 0, 0)))


def matmul_kernel_gradient(x: Array, g: Array, conv: Conv) -> Array:
  """The transposed rows of x times those of g."""
  return _product(_rows(x, conv).T, g.reshape(-1, conv.w[3]), conv).reshape(conv.w).astype(g.dtype)


# --- groups: one convolution each ---------------------------------------------------------------------------------

def _one(conv: Conv) -> Conv:
  return conv._replace(x=(*conv.x[:3], conv.x[3] // conv.groups), w=(*conv.w[:3], conv.w[3] // conv.groups), groups=1)


def _each(conv, x=None, w=None, g=None):
  parts = [[None] * conv.groups if a is None else jnp.split(a, conv.groups, -1) for a in (x, w, g)]
  return zip(*parts, strict=True)


def _dense(x, w, conv):
  if conv.w[:2] == (1, 1):
    return matmul_forward(x, w, conv)
  return lax.conv_general_dilated(x, w, conv.strides, conv.padding, rhs_dilation=conv.dilation,
                                  dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision=conv.precision)


def split_forward(x: Array, w: Array, conv: Conv) -> Array:
  """Each group by itself, concatenated."""
  return jnp.concatenate([_dense(x, w, _one(conv)) for x, w, _ in _each(conv, x=x, w=w)], -1)


def split_input_gradient(g: Array, w: Array, conv: Conv) -> Array:
  """The gradients of the groups, concatenated."""
  one = _one(conv)
  of = lambda g, w: jax.linear_transpose(lambda x: _dense(x, w, one), jax.ShapeDtypeStruct(one.x, g.dtype))(g)[0]
  return jnp.concatenate([of(g, w) for _, w, g in _each(conv, w=w, g=g)], -1)


def split_kernel_gradient(x: Array, g: Array, conv: Conv) -> Array:
  """The gradients of the groups, concatenated."""
  one = _one(conv)
  of = lambda x, g: jax.linear_transpose(lambda w: _dense(x, w, one), jax.ShapeDtypeStruct(one.w, g.dtype))(g)[0]
  return jnp.concatenate([of(x, g) for x, _, g in _each(conv, x=x, g=g)], -1)


# --- the table ----------------------------------------------------------------------------------------------------

FORMULATIONS: dict[str, Formulation] = {
    'lax': Formulation(lambda conv: True, None, None, None),
    'shifts': Formulation(lambda conv: conv.depthwise, shifts_forward, shifts_input_gradient, shifts_kernel_gradient),
    'matmul': Formulation(lambda conv: conv.groups == 1 and conv.w[:2] == (1, 1), matmul_forward, matmul_input_gradient,
                          matmul_kernel_gradient),
    'split': Formulation(lambda conv: conv.groups > 1, split_forward, split_input_gradient, split_kernel_gradient)}


def fastest(conv: Conv, part: str) -> str:
  """The formulation that was measured to be the fastest on the CPU (projects/benchmarks/convs.py)."""
  if conv.depthwise:
    return 'shifts'
  return 'matmul' if FORMULATIONS['matmul'].fits(conv) else 'split'
