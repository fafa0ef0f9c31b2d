"""Sums and products of two tensors, clamps, and the change from one range to another."""
import re
from itertools import takewhile

import jax.numpy as jnp
import numpy as np

from effjax.export.reference.rounding import (
    doubling_high_product,
    fixed_point,
    fixed_rounding,
    float_rounding,
    ratio,
    stored,
)

_BITS = 20  # that the builtin sum appends to both inputs
_LANES = 16  # numbers that builtin kernels compute in one vector
_LANES_BY_NUMBER = 8  # the builtin sum, where one side of its inner loop is a single number


def _add(node, sources, x, kernels):
  return _sum(node, sources, _centred(sources, x), kernels, vectors=True)


def _sub(node, sources, x, kernels):
  a, b = _centred(sources, x)
  return _sum(node, sources, (a, -b), kernels, vectors=False)


def _mul(node, sources, x, kernels):
  """XNNPACK takes ratios within [2^-16, 2^8). The builtin kernel rounds ties away from zero, its vectors in 16 bits."""
  a, b = _centred(sources, x)
  multiplier = np.float32(sources[0].scale) * np.float32(sources[1].scale) / np.float32(node.output.scale)
  if kernels == 'xnnpack' and 2 ** -16 <= multiplier < 2 ** 8:
    return float_rounding(node, a * b, multiplier)
  rounded = fixed_rounding(a * b, *fixed_point(multiplier), away=True)
  wrapped = _int16(jnp.clip(rounded, -2 ** 15, 2 ** 15 - 1), node.output.zero_point)
  return stored(node, jnp.where(_in_vectors(node, sources, _LANES), wrapped, rounded), 'builtin')


def _clamp(node, sources, x, kernels):
  """A change of range and an activation; XNNPACK has none of 8 bits."""
  multiplier = fixed_point(ratio(sources[0], node.output))
  return stored(node, fixed_rounding(x[0] - sources[0].zero_point, *multiplier, away=True), 'builtin')


def _quantize(node, sources, x, kernels):
  """XNNPACK takes ratios within [2^-8, 2^7]: 8 fraction bits, ties up. Builtin: ties up in whole vectors only."""
  q, multiplier = x[0] - sources[0].zero_point, ratio(sources[0], node.output)
  if kernels == 'xnnpack' and 2 ** -8 <= multiplier <= 2 ** 7:
    return stored(node, (q * int(np.rint(256 * multiplier)) + 2 ** 7) >> 8)
  multiplier = fixed_point(ratio(sources[0], node.output, np.float64))
  away = ~_in_vectors(node, (sources[0], node.output), _LANES)
  return stored(node, fixed_rounding(q, *multiplier, away=away), 'builtin')


def _constant(node, sources, x, kernels):
  return jnp.asarray(node.codes, jnp.int32)


def _centred(sources, x):
  """Both without zero point and with as many axes: the shorter shape gets leading ones."""
  rank = max(q.ndim for q in x)
  return tuple((q - s.zero_point).reshape((1,) * (rank - q.ndim) + q.shape) for q, s in zip(x, sources, strict=True))


def _sum(node, sources, x, kernels, vectors):
  """XNNPACK takes ratios within [2^-10, 2^8): multipliers of 21 bits on one exponent, one shift, ties up."""
  ratios = [ratio(s, node.output) for s in sources]
  if kernels != 'xnnpack' or not all(2 ** -10 <= r < 2 ** 8 for r in ratios):
    return _builtin_sum(node, sources, x, vectors)
  shift = 21 - int(np.frexp(max(ratios))[1])
  a, b = (q * int(np.rint(np.float64(r) * 2. ** shift)) for q, r in zip(x, ratios, strict=True))
  return stored(node, (a + b + (1 << (shift - 1))) >> shift)


def _builtin_sum(node, sources, x, vectors):
  """Brings both to twice the larger scale with 20 more bits, their sum to the output's scale, ties away from zero.

  vectors: the kernel has vectors, which round the inputs differently and the sum in 16 bits.
  """
  scales = [np.float64(np.float32(s.scale)) for s in sources]
  twice = 2 * max(scales)
  by_number = vectors and _inner_loop(sources)[1]
  whole = _in_vectors(node, sources, _LANES_BY_NUMBER if by_number else _LANES) & vectors
  a, b = (_appended(q, *fixed_point(scale / twice), whole, by_number) for q, scale in zip(x, scales, strict=True))
  unit = 2 ** _BITS * np.float64(np.float32(node.output.scale))
  rounded = fixed_rounding(a + b, *fixed_point(twice / unit), away=True)
  return stored(node, jnp.where(whole, _int16(rounded, node.output.zero_point), rounded), 'builtin')


def _appended(q, multiplier, exponent, whole, by_number):
  """`q 2^20` times a ratio: rounded twice, in vectors once; bits are cut in those with a single number."""
  shift = _BITS + exponent
  together = doubling_high_product(q << np.maximum(shift, 0) >> np.maximum(-shift, 0), multiplier)
  if by_number:
    together = doubling_high_product(q << _BITS, multiplier) >> -exponent
  return jnp.where(whole, together, fixed_rounding(q << _BITS, multiplier, exponent, away=True))


def _int16(rounded, zero_point):
  """What is left of a number whose sum with the zero point wraps around in 16 bits."""
  return ((rounded + zero_point + 2 ** 15) & 0xffff) - 2 ** 15 - zero_point


def _in_vectors(node, sources, lanes):
  """Which outputs a builtin kernel computes in whole vectors: the others are the rests of its inner loops."""
  length, shape = _inner_loop(sources)[0], (1, *node.output.shape[1:])
  return (np.arange(np.prod(shape)) % length < length // lanes * lanes).reshape(shape)


def _inner_loop(sources):
  """Length of a builtin kernel's inner loop over two shapes, and whether one side of it is a single number.

  From the last axis on: equal sizes, then one input repeated, then equal, the other repeated, equal. What does not fit
  is computed number by number: a loop of 1.
  """
  rank = max(len(s.shape) for s in sources)
  pairs = zip(*((1,) * (rank - len(s.shape)) + tuple(s.shape) for s in sources), strict=True)
  pairs = [pair for pair in pairs if pair != (1, 1)][::-1]
  product = lambda pairs: int(np.prod([max(pair) for pair in pairs], dtype=int))
  equal = [*takewhile(lambda pair: pair[0] == pair[1], pairs)]
  rest = pairs[len(equal):]
  if not rest:
    return product(equal), False
  side = rest[0].index(1)
  marks = ''.join('=' if a == b else 'r' if (a, b)[side] == 1 else 'o' for a, b in rest)
  fits = re.fullmatch('(r+)=*o*=*', marks)
  if fits is None or product(equal) > 1:
    return (1 if fits is None else product(equal)), False
  return product(rest[:fits.end(1)]), True


KERNELS = {'add': _add, 'sub': _sub, 'mul': _mul, 'clamp': _clamp, 'quantize': _quantize, 'constant': _constant}
