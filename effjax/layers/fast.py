"""The convolutions that XLA's CPU backend runs slowly, written so that it runs them fast.

Forward and backward on 2 CPU cores, against the convolution primitive, measured alternately: depthwise 3x3 and 5x5 at
8x8 and 32x32, 7 to 14 times; 1x1, 2.4 to 5 times. Written as sums of shifted slices with autodiff's gradient,
depthwise 5x5 gains 2 times only: the gradient of the kernel then takes a pass per tap instead of one for all.
"""
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from effjax.graph.trace import evaluate, execute, scan, trace

Padding = tuple[tuple[int, int], tuple[int, int]]


def fast(fn: Callable) -> Callable:
  """The same function `fn(params, *args)`, with depthwise and 1x1 convolutions by `depthwise` and `pointwise`.

  The outermost thing to do to a forward function, right before it is differentiated: what reads its graph (channels,
  profile, taps, export) is given `fn` itself. On other backends than the CPU it is `fn`. Convolutions with dilation,
  groups or a layout other than NHWC, HWIO stay; so do those within custom derivatives.
  Equal up to the rounding of another order of summation. Forward mode is not defined (`jax.grad` of `jax.grad` is).

  >>> conv = lambda w, x: lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  >>> jax.make_jaxpr(fast(conv))(jnp.ones((1, 1, 3, 4)), jnp.ones((1, 8, 8, 3))).eqns[-2].primitive
  dot_general
  """
  if jax.default_backend() != 'cpu':
    return fn

  @functools.wraps(fn)
  def run(params, *args):
    program = trace(fn, params, *args)
    out = evaluate(program, jax.tree.leaves((params, args)), _faster)
    return jax.tree.unflatten(program.out_tree, out)
  return run


def pointwise(x: Float[Array, 'n h w cin'], w: Float[Array, '1 1 cin cout'],
              precision: lax.PrecisionLike = None) -> Float[Array, 'n h w cout']:
  """1x1 convolution as one matrix product.

  >>> pointwise(jnp.ones((1, 2, 2, 3)), jnp.ones((1, 1, 3, 1))).ravel()
  Array([3., 3., 3., 3.], dtype=float32)
  """
  rows = x.reshape(-1, x.shape[-1])
  return jnp.matmul(rows, w[0, 0], precision=precision).reshape(*x.shape[:-1], w.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(x: Float[Array, 'n h w c'], w: Float[Array, 'kh kw 1 c'], strides: tuple[int, int],
              padding: Padding) -> Float[Array, 'n h2 w2 c']:
  """`y[n, i, j, c] = sum_ab x[n, si + a, sj + b, c] w[a, b, 0, c]` of the padded x: a sum of shifted slices.

  Gradient, hand-written: that of x is the same sum over the spread and padded cotangent with the kernel turned by
  180 degrees; that of w is one reduction with a sum for each tap. float32 arithmetic inside.

  >>> depthwise(jnp.arange(4.).reshape(1, 2, 2, 1), jnp.ones((2, 2, 1, 1)), (1, 1), ((0, 0), (0, 0))).item()
  6.0
  """
  return _shifted_sum(_pad(x, padding), w, strides).astype(x.dtype)


def _forward(x, w, strides, padding):
  return depthwise(x, w, strides, padding), (x, w)


def _backward(strides, padding, saved, g):
  x, w = saved
  taps = [tap * g.astype(tap.dtype) for tap in _taps(_pad(x, padding), w.shape[:2], strides)]
  add = lambda left, right: tuple(a + b for a, b in zip(left, right, strict=True))
  sums = lax.reduce(tuple(taps), (jnp.zeros((), taps[0].dtype),) * len(taps), add, (0, 1, 2))
  dw = jnp.stack(sums).reshape(w.shape)
  spread = [_spread(*each) for each in zip(x.shape[1:3], g.shape[1:3], w.shape[:2], strides, padding, strict=True)]
  g = lax.pad(g.astype(dw.dtype), jnp.zeros((), dw.dtype), ((0, 0, 0), *spread, (0, 0, 0)))
  dx = _shifted_sum(lax.optimization_barrier(g), w[::-1, ::-1], (1, 1))
  return dx.astype(x.dtype), dw.astype(w.dtype)


depthwise.defvjp(_forward, _backward)


def _spread(size, out, k, stride, padding):
  """Low, high and interior padding of the cotangent, after which a VALID sum over k gives `size` entries."""
  low = k - 1 - padding[0]
  return low, size + k - 1 - low - ((out - 1) * stride + 1), stride - 1


def _pad(x, padding):
  """In float32, and kept from being computed again for every tap."""
  x = x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)
  spatial = ((*p, 0) for p in padding)
  return lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *spatial, (0, 0, 0))))


def _taps(x, kernel, strides):
  h, w = ((n - k) // s + 1 for n, k, s in zip(x.shape[1:3], kernel, strides, strict=True))
  for a in range(kernel[0]):
    for b in range(kernel[1]):
      ends = (x.shape[0], a + strides[0] * (h - 1) + 1, b + strides[1] * (w - 1) + 1, x.shape[3])
      yield lax.slice(x, (0, a, b, 0), ends, (1, *strides, 1))


def _shifted_sum(x, w, strides):
  weights = w.reshape(-1, 1, 1, 1, w.shape[-1]).astype(x.dtype)
  products = [tap * weights[i] for i, tap in enumerate(_taps(x, w.shape[:2], strides))]
  return functools.reduce(jnp.add, products)


def _faster(eqn, args):
  if eqn.name == 'scan':
    return scan(eqn, args, lambda inputs: (evaluate(eqn.body, inputs, _faster), ()))[0]
  if eqn.name == 'conv_general_dilated' and _plain(eqn.params):
    (x, w), p = args, eqn.params
    if w.shape[2] == 1 and p['feature_group_count'] == x.shape[-1] == w.shape[-1]:
      return [depthwise(x, w, tuple(p['window_strides']), tuple(map(tuple, p['padding'])))]
    still = p['feature_group_count'] == 1 and p['window_strides'] == (1, 1) and p['padding'] == ((0, 0), (0, 0))
    if w.shape[:2] == (1, 1) and still:
      return [pointwise(x, w, p['precision'])]
  return execute(eqn, args)


def _plain(p):
  """Two spatial axes, NHWC and HWIO, no dilation, nothing but the convolution itself."""
  layout = tuple(p['dimension_numbers'])
  undilated = (*p['lhs_dilation'], *p['rhs_dilation']) == (1, 1, 1, 1)
  return (layout == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)) and undilated and p['batch_group_count'] == 1
          and p['preferred_element_type'] is None and min(map(min, p['padding'])) >= 0)
