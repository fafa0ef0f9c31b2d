"""What an integer kernel computes before it rounds, and the linear arithmetic that folds into it."""
import math
from typing import Any, NamedTuple

import numpy as np

from effjax.errors import EffjaxError
from effjax.export.network import ACTIVATIONS, Node, Tensor
from effjax.reparam import Fact
from effjax.tree import Path

_LARGEST_BIAS = {8: 2 ** 30, 16: 2 ** 46}  # by bits of the input


class Kernel(NamedTuple):
  """A weight with a fact: `value == codes * scale`, all of one shape. `codes` and `scale` follow its layout."""
  path: str
  bits: int
  value: Any
  codes: Any
  scale: Any


class Stored(NamedTuple):
  """An integer tensor of the network, by index; `shape` is larger than the tensor's where it is broadcast."""
  index: int
  shape: tuple[int, ...]


class Pending(NamedTuple):
  """A kernel that has not rounded yet: its value is `clip(gain * input_scale * accumulator + bias, low, high)`.

  gain, bias: per output channel for conv, depthwise and dense; scalars otherwise (gain counts from the plain operator).
  """
  op: str
  inputs: tuple[int, ...]
  shape: tuple[int, ...]
  settings: dict[str, Any]  # `result`: the shape after a reshape; `order`: the axes of the kernel's own layout
  kernel: Kernel | None = None
  codes: np.ndarray | None = None
  gain: Any = 1.
  bias: Any = 0.
  low: float = -math.inf
  high: float = math.inf

  @property
  def linear(self) -> bool:
    """True if per-channel gains and biases fold into it."""
    return self.kernel is not None


def codes_of(who: str, path: Path, value: Any, fact: Fact) -> tuple[np.ndarray, int]:
  """The codes of a leaf, as float32, and their bits.

  Raises:
    EffjaxError: codes that no integer kernel multiplies; they do not fit the bits; the leaf is not codes times scale.
      `who` asks.
  """
  if fact.levels is not None or fact.offset is not None:
    what = 'numbers of levels' if fact.levels is not None else 'asymmetric (an offset)'
    raise EffjaxError(f'{who}: the codes of {path!r} are {what}, and kernels multiply by codes times scale: use a '
                      'symmetric uniform quantizer for it, such as quantize.lsq')
  value, bits = np.asarray(value, np.float32), max(2, int(np.max(fact.bits)))  # -1 and 1 are two of the codes of 2 bits
  scale = np.broadcast_to(np.asarray(fact.scale, np.float32), value.shape)
  codes = np.rint(value.astype(np.float64) / scale)
  if not (bits <= 8 and np.abs(codes).max(initial=0) < 2 ** (bits - 1)):
    raise EffjaxError(f'{who}: {path!r} has codes up to {np.abs(codes).max():.0f} for {bits} bits: '
                      'wanted at most 8 bits and a symmetric range')
  if not np.array_equal(codes.astype(np.float32) * scale, value):
    raise EffjaxError(f'{who}: {path!r} is not codes times scale (largest difference '
                      f'{np.abs(codes * scale - value).max():.2g}): pass the weights as deployed (key=None)')
  return codes.astype(np.float32), bits


def scaled(pending: Pending, factor: np.ndarray) -> Pending | str:
  """`pending * factor`, or why it cannot be folded."""
  per_channel = channels(pending, factor)
  if per_channel is None:
    return 'the factor differs within a channel'
  if not pending.linear and np.size(per_channel) > 1:
    return f'{pending.op} cannot take a factor per channel'
  gain, bias = pending.gain * per_channel, pending.bias * per_channel
  if not clamped(pending):
    return pending._replace(gain=gain, bias=bias)
  if np.size(np.unique(per_channel)) > 1 or per_channel.flat[0] <= 0:
    return 'a factor per channel after the activation: move BatchNorm before it'
  factor = float(per_channel.flat[0])
  return pending._replace(gain=gain, bias=bias, low=pending.low * factor, high=pending.high * factor)


def shifted(pending: Pending, term: np.ndarray) -> Pending | str:
  """`pending + term`, or why it cannot be folded."""
  per_channel = channels(pending, term)
  if not pending.linear:
    return f'{pending.op} cannot take a constant'
  if per_channel is None:
    return 'the constant differs within a channel'
  if clamped(pending) and np.size(np.unique(per_channel)) > 1:
    return 'a constant per channel after the activation: move BatchNorm before it'
  offset = float(per_channel.flat[0]) if clamped(pending) else 0.
  return pending._replace(bias=pending.bias + per_channel, low=pending.low + offset, high=pending.high + offset)


def clip(pending: Pending, low: float, high: float) -> Pending:
  """`min(max(pending, low), high)`."""
  return pending._replace(low=min(max(pending.low, low), high), high=max(min(pending.high, high), low))


def clamped(pending: Pending) -> bool:
  """True after an activation."""
  return pending.low > -math.inf or pending.high < math.inf


def channels(pending: Pending, value: np.ndarray) -> np.ndarray | None:
  """`value` as one number for each output channel, or a single one; None if it varies otherwise."""
  value = np.asarray(value, np.float64)
  if value.size == 1:
    return value.reshape(1)
  if not pending.linear or value.ndim > len(pending.shape):
    return None
  value = np.broadcast_to(value, pending.shape)
  if pending.settings.get('order'):
    value = value.transpose(pending.settings['order'])
  flat = value.reshape(-1, pending.codes.shape[-1])
  return flat[0] if (flat == flat[0]).all() else None


def activation(low: float, high: float, output: Tensor) -> str | None:
  """The name of the fused activation that clips to [low, high], '' if the tensor's range does so; None if none does."""
  top = 2 ** (output.bits - 1)

  def codes(bounds):
    rounded = np.rint(np.clip(np.asarray(bounds, np.float64) / output.scale, -1e6, 1e6)) + output.zero_point
    return tuple(np.clip(rounded, -top, top - 1))
  return next((name for name, bounds in ACTIVATIONS.items() if codes(bounds) == codes((low, high))), None)


def weighted(pending: Pending, source: Tensor) -> dict[str, Any]:
  """codes, scales, bias and bits of a kernel with weights: positive scales, biases in units of the accumulator.

  A negative gain flips the codes. A channel with gain 0 has codes 0. If a bias does not fit (a gain of
  nearly 0), the channel's scale is raised by a power of two and its codes are rounded.
  """
  input_scale, largest = np.float64(source.scale), _LARGEST_BIAS[source.bits]
  gain = np.broadcast_to(pending.gain, pending.codes.shape[-1:]).astype(np.float64)
  bias = np.broadcast_to(pending.bias, gain.shape)
  codes = np.where(gain == 0, 0, pending.codes * np.sign(gain))
  scales = np.where(gain == 0, np.abs(bias) / largest / input_scale + 1e-6, np.abs(gain)).astype(np.float32)
  units = lambda: bias / (input_scale * scales.astype(np.float64))
  raised = np.exp2(np.maximum(0, np.ceil(np.log2(np.maximum(np.abs(units()) / largest, 1e-30)))))
  codes, scales = np.rint(codes / raised), (scales * raised).astype(np.float32)
  wide = np.int32 if source.bits == 8 else np.int64
  return {'codes': codes.astype(np.int8), 'scales': scales, 'bias': np.rint(units()).astype(wide),
          'bits': pending.kernel.bits}


def node(pending: Pending, output: Tensor, name: str, source: Tensor) -> Node:
  """The kernel with its rounding."""
  arrays = weighted(pending, source) if pending.linear else {}
  return Node(pending.op, pending.inputs, output, name, pending.settings, **arrays)
