"""For each kind of node: the operator of the file, its version, its options, its constant inputs."""
from collections.abc import Sequence
from typing import Any

import numpy as np

from effjax.errors import EffjaxError
from effjax.export.network import Node, Tensor, container

FUSED = {'': 0, 'relu': 1, 'relu_n1_to_1': 2, 'relu6': 3}
SAME, VALID = 0, 1


def _plain(name: str, int8: int = 1, int16: int = 3):
  """An operator whose version depends on the type of its input."""
  return lambda node, sources, batch: (name, int16 if (*sources, node.output)[0].bits == 16 else int8)


def _weighted(name: str, int8: int, int4: int, int16: int):
  def version(node, sources, batch):
    wide = {16: int16}.get(sources[0].bits, int8)
    return name, int4 if container(node) == 4 else wide
  return version


def _conv(node, sources, batch):
  name, version = _weighted('CONV_2D', 3, 7, 4)(node, sources, batch)
  return name, max(version, 6) if node.settings['groups'] > 1 else version


def _transpose_conv(node, sources, batch):
  return 'TRANSPOSE_CONV', 4 if node.activation or sources[0].bits == 16 else 3


def _moved(name: str, int8: int, int16: int, **above: int):
  """An operator whose version depends on the rank, too: `above_4=5` is version 5 for more than four axes."""
  def version(node, sources, batch):
    rank = len(sources[0].shape)
    larger = [number for key, number in above.items() if rank > int(key.removeprefix('above_'))]
    return name, max(larger, default=int16 if sources[0].bits == 16 else int8)
  return version


def _slice(node, sources, batch):
  plain = _moved('SLICE', 2, 4, above_4=5), _moved('STRIDED_SLICE', 2, 2, above_4=4)
  return plain[not _is_plain_slice(node)](node, sources, batch)


def _pad(node, sources, batch):
  return _moved('PADV2' if node.settings.get('lowest') else 'PAD', 2, 3, above_4=4)(node, sources, batch)


OPERATORS = {
    'conv': _conv, 'depthwise': _weighted('DEPTHWISE_CONV_2D', 3, 7, 5),
    'dense': _weighted('FULLY_CONNECTED', 5, 10, 7), 'transpose_conv': _transpose_conv,
    'add': _plain('ADD', 2, 4), 'sub': _plain('SUB', 3, 5), 'mul': _plain('MUL', 2, 4),
    'mean': _plain('MEAN', 2), 'sum': _plain('SUM', 2, 2), 'reduce_max': _plain('REDUCE_MAX', 2),
    'concat': _plain('CONCATENATION', 2), 'max_pool': _plain('MAX_POOL_2D', 2),
    'average_pool': _plain('AVERAGE_POOL_2D', 2), 'reshape': _plain('RESHAPE', 1, 1),
    'broadcast': _plain('BROADCAST_TO', 2, 3),
    'transpose': _moved('TRANSPOSE', 2, 5, above_4=4, above_5=6), 'slice': _slice, 'pad': _pad,
    'clamp': lambda node, sources, batch: ({'relu': 'RELU', 'relu6': 'RELU6', 'relu_n1_to_1': 'RELU_N1_TO_1'}[
        node.activation], 1 if node.activation == 'relu_n1_to_1' else 2),
    'quantize': _plain('QUANTIZE', 2, 2), 'argmax': _plain('ARG_MAX', 2, 2), 'logistic': _plain('LOGISTIC', 2),
    'tanh': _plain('TANH', 2), 'hard_swish': _plain('HARD_SWISH', 1, 1), 'gelu': _plain('GELU', 2, 2),
    'leaky_relu': _plain('LEAKY_RELU', 2, 2), 'elu': _plain('ELU', 1, 1), 'exp': _plain('EXP', 2, 2),
    'log': _plain('LOG', 2, 2), 'rsqrt': _plain('RSQRT', 2, 3), 'sqrt': _plain('SQRT', 2, 2),
    'abs': _plain('ABS', 2, 3), 'softmax': _plain('SOFTMAX', 2), 'log_softmax': _plain('LOG_SOFTMAX', 2),
    'matmul': _plain('BATCH_MATMUL', 2),
    'resize_bilinear': _plain('RESIZE_BILINEAR', 3, 3), 'resize_nearest': _plain('RESIZE_NEAREST_NEIGHBOR', 3, 4)}


def options(node: Node, sources: Sequence[Tensor]) -> tuple[str, dict[str, Any]]:
  """The options table and its fields; '' if the operator has none."""
  s, fused = node.settings, {'fusedActivationFunction': FUSED[node.activation]}
  if node.op in ('conv', 'depthwise', 'max_pool', 'average_pool', 'transpose_conv'):
    return _windowed(node, sources, fused | {'padding': padding(node), 'strideH': s['strides'][0],
                                             'strideW': s['strides'][1]})
  match node.op:
    case 'dense':
      return 'FullyConnectedOptions', fused | {'keepNumDims': len(node.output.shape) > 2}
    case 'add' | 'sub' | 'mul':
      # 16 bits, scales that are powers of two: not the other kernel, that of older files
      general = {'potScaleInt16': False} if node.output.bits == 16 and node.op != 'mul' else {}
      return f'{node.op.title()}Options', fused | general
    case 'mean' | 'sum' | 'reduce_max':
      return 'ReducerOptions', {'keepDims': s['keep']}
    case 'concat':
      return 'ConcatenationOptions', {'axis': s['axis']}
    case 'softmax':
      return 'SoftmaxOptions', {'beta': 1.}
    case 'leaky_relu':
      return 'LeakyReluOptions', {'alpha': s['alpha']}
    case 'gelu':
      return 'GeluOptions', {'approximate': s['approximate']}
    case 'matmul':
      return 'BatchMatMulOptions', {'adjX': s['adj_x'], 'adjY': s['adj_y']}
    case 'argmax':
      return 'ArgMaxOptions', {'outputType': 2}
    case 'resize_bilinear' | 'resize_nearest':
      name = 'ResizeBilinearOptions' if node.op == 'resize_bilinear' else 'ResizeNearestNeighborOptions'
      return name, {'alignCorners': s['align_corners'], 'halfPixelCenters': s['half_pixel']}
    case 'slice' if not _is_plain_slice(node):
      return 'StridedSliceOptions', {}
  return _EMPTY.get(node.op, ''), {}


_EMPTY = {'reshape': 'ReshapeOptions', 'broadcast': 'BroadcastToOptions',
          'transpose': 'TransposeOptions', 'slice': 'SliceOptions', 'exp': 'ExpOptions',
          'quantize': 'QuantizeOptions', 'abs': 'AbsOptions', 'hard_swish': 'HardSwishOptions',
          'log_softmax': 'LogSoftmaxOptions'}


def _windowed(node, sources, fields):
  s = node.settings
  if node.op == 'transpose_conv':
    return 'TransposeConvOptions', fields
  if node.op in ('max_pool', 'average_pool'):
    return 'Pool2DOptions', fields | {'filterHeight': s['window'][0], 'filterWidth': s['window'][1]}
  fields |= {'dilationHFactor': s['dilation'][0], 'dilationWFactor': s['dilation'][1]}
  if node.op == 'conv':
    return 'Conv2DOptions', fields
  return 'DepthwiseConv2DOptions', fields | {'depthMultiplier': node.output.shape[-1] // sources[0].shape[-1]}


def padding(node: Node) -> int:
  """SAME or VALID.

  Raises:
    EffjaxError: the crop of a transposed convolution is neither.
  """
  s = node.settings
  if node.op != 'transpose_conv':
    return SAME if any(map(any, s['padding'])) else VALID
  found = crop_padding(node.codes.shape[:2], s['strides'], s['padding'])
  if found is None:
    raise EffjaxError(f'tflite: {node.output.name!r}: TRANSPOSE_CONV cannot crop {s["padding"]}, wanted what SAME or '
                      'VALID crops: keep the full output and slice it')
  return found


def crop_padding(kernel: Sequence[int], strides: Sequence[int], crop: Sequence[tuple[int, int]]) -> int | None:
  """The padding with which TRANSPOSE_CONV crops each axis of its full output by (before, after); None if none does.

  The operator is told the output's shape alone. Of `(n - 1) stride + kernel` positions, VALID crops none, and may add
  after them fewer than a stride, which hold the bias. SAME crops `kernel - stride <= before + after < kernel`, half of
  it before, rounded down.

  >>> crop_padding((3, 2), (2, 2), ((0, 1), (0, 0))) == SAME, crop_padding((3, 2), (2, 2), ((1, 0), (0, 0)))
  (True, None)
  """
  if all(before == 0 and -s < after <= 0 for s, (before, after) in zip(strides, crop)):
    return VALID
  same = all(k - s <= sum(sides) < k and sides[0] == max(sum(sides), 0) // 2
             for k, s, sides in zip(kernel, strides, crop))
  return SAME if same else None


def constants(node: Node, sources: Sequence[Tensor], batch: int):
  """Constant inputs before and after the activations, each with its (scale, zero point), () for plain integers."""
  s, plain = node.settings, lambda *values: (np.array(values[0], np.int32), ())
  match node.op:
    case 'mean' | 'sum' | 'reduce_max':
      return [], [plain(s['axes'])]
    case 'reshape':
      return [], [plain((batch, *s['shape']))]
    case 'broadcast':
      return [], [plain((batch, *node.output.shape[1:]))]
    case 'transpose':
      return [], [plain(s['permutation'])]
    case 'slice':
      return [], _ranges(node, plain, batch)
    case 'pad':
      least = np.array([-2 ** (sources[0].bits - 1)], f'int{sources[0].bits}')
      lowest = [(least, ([sources[0].scale], [sources[0].zero_point]))] if s.get('lowest') else []
      return [], [plain(s['padding']), *lowest]
    case 'argmax':
      return [], [plain(s['axis'])]
    case 'resize_bilinear' | 'resize_nearest':
      return [], [plain(s['size'])]
    case 'transpose_conv':
      return [plain((batch, *node.output.shape[1:]))], []
  return [], []


def _ranges(node, plain, batch):
  s = node.settings
  start, limit = (0, *s['start'][1:]), (batch, *s['limit'][1:])
  if _is_plain_slice(node):
    return [plain(start), plain(tuple(b - a for a, b in zip(start, limit)))]
  return [plain(start), plain(limit), plain((1, *s['strides'][1:]))]


def _is_plain_slice(node):
  return all(step == 1 for step in node.settings.get('strides', ()))
