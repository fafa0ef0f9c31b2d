"""Functions of 16-bit codes: tables of some hundred values, straight lines in between."""
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from effjax.export.reference import int16_gemmlowp
from effjax.export.reference.int16_rounding import rescaled, scale_of

LOWEST, HIGHEST = -2 ** 15, 2 ** 15 - 1


def table(function: Callable, scale: np.floating, zero_point: int, output_scale: np.floating) -> np.ndarray:
  """513 codes of `function` over the range of int16 codes, each moved by half the error of the line to the next.

  In the precision of the scales, as the device computes it.
  """
  number, away = type(scale), lambda v: np.sign(v) * np.floor(np.abs(v) + type(v[0])(.5))
  first, last = (scale * number(end - zero_point) for end in (LOWEST, HIGHEST))
  per_unit = number(2 ** 16) / (output_scale * number(HIGHEST) - output_scale * number(LOWEST))
  step, i = (last - first) / number(512), np.arange(514).astype(number)
  at = function(np.append(first + i[:513] * step, last)) * per_unit
  middle = function(first + i[:512] * step + step / number(2)) * per_unit
  codes = away(at)
  error = away((at[1:513] + codes[:512]) / number(2)) - away(middle)
  return np.clip(np.append(codes[:512] - away(error / number(2)), codes[513]), LOWEST, HIGHEST).astype(np.int32)


def looked_up(codes: np.ndarray, x: jax.Array) -> jax.Array:
  """A `table` at int16 codes: the line between two of its entries, ties up."""
  index, offset, values = 256 + (x >> 7), x & 127, jnp.asarray(codes)
  base = values[index]
  return base + (((values[index + 1] - base) * offset + 64) >> 7)


def _sigmoid_table() -> np.ndarray:
  """65536 sigmoid(i / 24), each moved by half the error of the line to the next one; the last is 1."""
  at = lambda i: 65536 / (1 + np.exp(-i / 24))
  i = np.arange(255)
  moved = at(i) + (at(i + .5) - (at(i) + at(i + 1)) / 2) / 2
  return np.append(np.rint(moved), 65535).astype(np.int32)


_SIGMOID = _sigmoid_table()
_EXP = table(np.exp, np.float64(10 / 65535), HIGHEST, np.float64(2 / 65535))
_RECIPROCAL = table(lambda v: 1 / (1 + v), np.float64(1 / 65535), LOWEST, np.float64(2 / 65535))


def _sigmoid(source, x, bits):
  """Codes in units of 1/12288; 2^16 sigmoid of their size in units of 2^bits / 24, with `bits` more bits; its end."""
  multiplier, shift = scale_of(source) * 12288, 0
  while multiplier <= 32767 / 2 and shift <= 30:
    multiplier, shift = multiplier * 2, shift + 1
  x = (x * int(multiplier) + (1 << shift >> 1)) >> shift
  size, values = jnp.abs(x), jnp.asarray(_SIGMOID)
  index = jnp.minimum(size >> bits, 254)
  line = (values[index] << bits) + (size & (2 ** bits - 1)) * (values[index + 1] - values[index])
  return x, line, size >> bits >= 255


def _logistic(node, sources, x, kernels):
  if _log2(sources[0]) == -12:
    return int16_gemmlowp.logistic(x[0])
  x, value, end = _sigmoid(sources[0], x[0], 9)
  value = jnp.where(end, 0x7fff << 10, value)
  return jnp.where(x >= 0, value + 512, (1 << 25) - value + 511) >> 10


def _tanh(node, sources, x, kernels):
  """2 sigmoid(2 x) - 1."""
  if _log2(sources[0]) in (-12, -11):
    return int16_gemmlowp.tanh(jnp.clip(x[0] << int(_log2(sources[0])) + 12, LOWEST, HIGHEST))
  x, value, end = _sigmoid(sources[0], x[0], 8)
  value = jnp.where(end, 0xffff << 8, value)
  return jnp.where(x >= 0, value - (1 << 23) + 128, (1 << 23) - value + 127) >> 8


def _log2(source):
  """The logarithm of the scale; rounded if the kernels take it for a power of two."""
  exact = np.log2(scale_of(source))
  return np.rint(exact) if abs(exact - np.rint(exact)) < 1e-3 else exact


def _softmax(node, sources, x, kernels):
  """Exponentials of 15 bits; their sum as 1 + t and a power of two; 1 / (1 + t) from a table."""
  below = rescaled(x[0] - x[0].max(-1, keepdims=True), scale_of(sources[0]) / (10 / 65535))
  exps = looked_up(_EXP, jnp.clip(below + HIGHEST, LOWEST, HIGHEST))
  total = exps.sum(-1, keepdims=True)
  zeros = jax.lax.clz(total)
  t = ((((total << (zeros - 1)) >> 13) + 1) >> 1) - (1 << 16)
  inverse = looked_up(_RECIPROCAL, jnp.clip(t + LOWEST, LOWEST, HIGHEST))
  shift = 31 - zeros
  return jnp.clip((exps * inverse + ((1 << shift) >> 1)) >> shift, 0, HIGHEST)


def _gelu(node, v):
  """Each step in float32."""
  half = np.float32(.5) * v
  if node.settings['approximate']:
    slope = np.float32(np.sqrt(2 / np.pi)) * (v + np.float32(.044715) * v * v * v)
    return half * (1 + np.tanh(slope.astype(np.float64)).astype(np.float32))
  inner = v * np.float32(-np.sqrt(.5))
  return half * np.float32([math.erfc(each) for each in inner])


def _log(node, v):
  """The lowest code where there is no logarithm."""
  return np.where(v > 0, np.log(np.maximum(v, 1e-30, dtype=np.float64)), LOWEST * scale_of(node.output))


def _rsqrt(node, v):
  """The highest code where there is no root."""
  return np.where(v > 0, 1 / np.sqrt(np.maximum(v, np.float32(1e-30))), HIGHEST * np.float32(node.output.scale))


def _kernel(function):
  """A table in float32 of a function of the node and of real values."""
  def kernel(node, sources, x, kernels):
    scale, output = (np.float32(tensor.scale) for tensor in (sources[0], node.output))
    values = table(lambda v: function(node, v).astype(np.float32), scale, 0, output)
    return looked_up(values, x[0])
  return kernel


KERNELS16 = {'logistic': _logistic, 'tanh': _tanh, 'softmax': _softmax, 'gelu': _kernel(_gelu), 'log': _kernel(_log),
             'rsqrt': _kernel(_rsqrt), 'exp': _kernel(lambda node, v: np.exp(v, dtype=np.float64))}
