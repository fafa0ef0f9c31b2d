"""Tables of the builtin kernels that compute in fixed point: for each of the 256 codes the output, not yet clipped."""
import numpy as np

from effjax.export.network import Node, Tensor
from effjax.export.reference.rounding import fixed_point

_F = np.float32
_CODES = np.arange(-128, 128)
_NEWTON_STEPS = 5
_SHIFT = 20  # bits that the inverse square root keeps before it is scaled


def hard_swish(node: Node, source: Tensor) -> np.ndarray:
  """`x relu6(x + 3) / 6` in 16 bits: x with 7 more bits, times a fraction of 15 bits that is 0 to 1 for x = -3 to 3."""
  high = _F(1 / 128) * _F(source.scale)
  (scale, down), (slope, up) = (_multiplier_16(r) for r in (high / _F(node.output.scale), high / (_F(3) / _F(32768))))
  x = (_CODES - source.zero_point) << 7
  gate = _saturated(x << max(up - 1, 0))
  gate = (gate * slope + (1 << 14)) >> 15
  gate = _saturated(gate << 1) if up > 0 else _shifted_16(gate, -up)
  y = ((gate + (1 << 15)) >> 1) * ((x * scale + (1 << 14)) >> 15)
  return _shifted_16(np.sign(y) * (np.abs(y) >> 15), -down) + node.output.zero_point


def _multiplier_16(ratio):
  multiplier, exponent = fixed_point(ratio)
  return min((int(multiplier) + (1 << 15)) >> 16, 32767), int(exponent)


def _saturated(x):
  return np.clip(x, -32768, 32767)


def _shifted_16(x, bits):
  """As `_shifted`, in 16 bits: the remainder's mask is all ones from 16 bits on, so all is rounded away."""
  return np.where(x < 0, -1, 1) if bits > 15 else _shifted(x, bits)


def _shifted(x, bits):
  """`x / 2^bits`, ties away from zero."""
  return (x + ((1 << bits) >> 1) - ((x < 0) & (bits > 0))) >> bits


def rsqrt(node: Node, source: Tensor) -> np.ndarray:
  """By Newton's method in fixed point; zero gives the highest output, inputs below stop the interpreter."""
  root = _F(np.sqrt(_F(source.scale))) * _F(node.output.scale)
  multiplier, exponent = map(int, fixed_point(1 / np.float64(root)))
  output = [_scaled(_inverse_root(x), multiplier, exponent - _SHIFT) for x in range(1, 256)]
  codes = np.concatenate([[127], np.array(output) + node.output.zero_point])
  return codes[np.maximum(_CODES - source.zero_point, 0)]


def _inverse_root(x: int) -> int:
  """`2^20 / sqrt(x)`: three integer bits while it is iterated, then a multiplier of 31 bits."""
  if x == 1:
    return _scaled(1, 2 ** 31 - 1, _SHIFT)
  pairs = (31 - x.bit_length()) // 2 - 1
  half, y = (x << 2 * pairs >> 1) + 1 >> 1, 1 << 28
  for _ in range(_NEWTON_STEPS):
    cube = _high(_high(y, y), y) << 6
    y = (_high(3 << 27, y) - _high(half, cube)) << 3
  return _scaled(1, _high(y, 1518500250), _SHIFT - 11 + pairs)  # sqrt(1/2)


def _scaled(x: int, multiplier: int, exponent: int) -> int:
  return int(_shifted(np.int64(_high(x << max(exponent, 0), multiplier)), max(-exponent, 0)))


def _high(a: int, b: int) -> int:
  return (a * b + (1 << 30)) >> 31
