"""Functions of one tensor: by a table of 256 codes, and over the last axis softmax, log_softmax and argmax.

Tables are made on the host with the arithmetic of the kernel. The kernels call the float32 functions of the machine's C
library, which are taken to be rounded correctly; where one is not, a code that lies on a tie can be its neighbour.
"""
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from effjax.export.network import Node, Tensor
from effjax.export.reference import fixed_tables
from effjax.export.reference.rounding import fixed_point, fixed_rounding, stored

_F = np.float32
_CODES = np.arange(-128, 128)
_ROOT_2_PI = _F(2 / math.sqrt(math.pi) * math.sqrt(.5))


def _lookup(builtin: Callable[[Node, Tensor], np.ndarray], xnnpack: Callable[[Node, Tensor], np.ndarray] | None = None):
  """The kernel that reads a table of 256 codes; `xnnpack` if XNNPACK has the operator for int8."""
  def kernel(node, sources, x, kernels):
    table = (xnnpack if xnnpack and kernels == 'xnnpack' else builtin)(node, sources[0])
    return jnp.take(jnp.asarray(np.clip(table, -128, 127), jnp.int32), x[0] + 128, mode='clip')
  return kernel


def _floats(function: Callable[[np.ndarray, Node], np.ndarray]):
  """Builtin: rounded without the zero point, ties away from zero, as all tables of float functions."""
  def table(node, source):
    with np.errstate(over='ignore', divide='ignore', invalid='ignore'):
      y = function(_real(source), node)
      return _away(y * (_F(1) / _F(node.output.scale))) + node.output.zero_point
  return table


def _xnnpack_floats(function: Callable[[np.ndarray, Node], np.ndarray]):
  """XNNPACK: rounded with the zero point, ties to even."""
  def table(node, source):
    y = function(_real(source), node)
    return np.rint(y * (_F(1) / _F(node.output.scale)) + _F(node.output.zero_point))
  return table


def _real(source):
  return _F(source.scale) * (_CODES - source.zero_point).astype(_F)


def _away(x):
  """The nearest integers, ties away from zero; float64, in which halves can be added."""
  return np.sign(x) * np.floor(np.abs(x.astype(np.float64)) + .5)


def _c(function, x):
  """A float32 function of the C library."""
  return function(x.astype(np.float64)).astype(_F)


def _logistic(x, node):
  return _F(1) / (_F(1) + _c(np.exp, -x))


def _xnnpack_logistic(x, node):
  """In float64 within [-100, 100]; beyond, 0 or 1."""
  e = np.exp(np.clip(x, _F(-100), _F(100)).astype(np.float64))
  return (e / (1 + e)).astype(_F)


def _elu(x, node):
  return np.where(x < 0, _c(np.expm1, np.minimum(x, _F(0))), x)


def _gelu(x, node):
  if node.settings['approximate']:
    return _F(.5) * x * (_F(1) + _c(np.tanh, _ROOT_2_PI * (x + _F(.044715) * x * x * x)))
  return _F(.5) * x * _c(np.vectorize(math.erfc, otypes=[float]), x * _F(-math.sqrt(.5)))


def _log(x, node):
  """What has no logarithm gives the lowest output."""
  lowest = _F(-128 - node.output.zero_point) * _F(node.output.scale)
  return np.where(x <= 0, lowest, _c(np.log, np.where(x <= 0, _F(1), x)))


def _sqrt(node, source):
  """Rounded down, unlike every other function; inputs below the zero point stop the interpreter."""
  return np.trunc(np.sqrt(np.maximum(_real(source), _F(0))) / _F(node.output.scale)) + node.output.zero_point


def _abs(node, sources, x, kernels):
  distance = jnp.abs(x[0] - sources[0].zero_point)
  ratio = _F(sources[0].scale) / _F(node.output.scale)
  return stored(node, fixed_rounding(distance, *fixed_point(ratio), True))


def _leaky_relu(node, sources, x, kernels):
  """A multiplier for each sign. XNNPACK: of 8 bits after the point, ties up; if one is too small or large, builtin."""
  x, alpha = x[0] - sources[0].zero_point, _F(node.settings['alpha'])
  ratio = _F(sources[0].scale) / _F(node.output.scale)
  if kernels == 'xnnpack' and _xnnpack_takes(ratio, ratio * alpha):
    multipliers = (int(np.rint(256 * r)) for r in (ratio, ratio * alpha))
    return stored(node, (x * jnp.where(x > 0, *(jnp.asarray(m, jnp.int32) for m in multipliers)) + 128) >> 8)
  below = _F(sources[0].scale) * alpha / _F(node.output.scale)
  negative = fixed_rounding(x if alpha >= 0 else -x, *fixed_point(np.abs(below)), True)
  return stored(node, jnp.where(x >= 0, fixed_rounding(x, *fixed_point(ratio), True), negative))


def _xnnpack_takes(above, below) -> bool:
  return 1 / 256 <= above <= 128 and abs(below) >= 1 / 256 and -32767 / 256 <= below <= 128


def _exponentials(source, x):
  """exp of each input less the largest, and their float32 sum from first to last."""
  table = _c(np.exp, -_F(source.scale) * np.arange(256).astype(_F))
  e = jnp.take(jnp.asarray(table), jnp.max(x, -1, keepdims=True) - x, mode='clip')
  total, _ = jax.lax.scan(lambda total, part: (total + part, None), jnp.zeros(x.shape[:-1], jnp.float32),
                          jnp.moveaxis(e, -1, 0))
  return e, total[..., None]


def _softmax(node, sources, x, kernels):
  """Ties up, which are found by comparison: an addition could be fused with the product before it."""
  e, total = _exponentials(sources[0], x[0])
  y = e * (_F(1) / (total * _F(node.output.scale)))
  rounded = jnp.round(y)
  return stored(node, rounded + (y == rounded + _F(.5)).astype(jnp.float32))


def _log_softmax(node, sources, x, kernels):
  """Products are read from tables, so that no compiler can fuse them with the difference."""
  scale = _F(sources[0].scale)
  product = lambda factor, codes: jnp.take(jnp.asarray(factor * _CODES.astype(_F)), codes + 128, mode='clip')
  _, total = _exponentials(sources[0], x[0])
  offset = product(scale, jnp.max(x[0], -1, keepdims=True)) + _exact_log(total)
  output = _F(node.output.scale)
  return stored(node, jnp.round(product(scale / output, x[0]) - offset / output))


def _exact_log(x):
  """Rounded correctly: XLA's float32 logarithm is not."""
  with jax.enable_x64(True):
    return jnp.log(x.astype(jnp.float64)).astype(jnp.float32)


def _argmax(node, sources, x, kernels):
  """The first of equals."""
  return jnp.argmax(x[0], node.settings['axis']).astype(jnp.int32)


KERNELS = {
    'logistic': _lookup(_floats(_logistic), _xnnpack_floats(_xnnpack_logistic)),
    'tanh': _lookup(_floats(lambda x, node: _c(np.tanh, x)), _xnnpack_floats(lambda x, node: _c(np.tanh, x))),
    'elu': _lookup(_floats(_elu), _xnnpack_floats(_elu)), 'gelu': _lookup(_floats(_gelu)),
    'exp': _lookup(_floats(lambda x, node: _c(np.exp, x))), 'log': _lookup(_floats(_log)),
    'hard_swish': _lookup(fixed_tables.hard_swish), 'rsqrt': _lookup(fixed_tables.rsqrt), 'sqrt': _lookup(_sqrt),
    'abs': _abs, 'leaky_relu': _leaky_relu, 'softmax': _softmax, 'log_softmax': _log_softmax, 'argmax': _argmax}
