"""Convolutions and dot products: the kernels that hold weights."""
import numpy as np

from effjax.export import layouts
from effjax.export.kernels import Kernel, Pending, Stored
from effjax.graph.trace import Const

_NHWC = (0, 3, 1, 2)


def convolution(walk, eqn, args):
  """CONV_2D or DEPTHWISE_CONV_2D in NHWC; other layouts get a transpose before and after."""
  x, w = walk.stored(args[0], eqn), _weight(walk, eqn, args[1])
  p, numbers = eqn.params, eqn.params['dimension_numbers']
  if len(x.shape) != 4 or any(d != 1 for d in p['lhs_dilation']) or p['batch_group_count'] != 1:
    raise walk.refusal(eqn, 'wanted a 2-D convolution, neither transposed nor grouped over the batch')
  shape = walk.program.avals[eqn.outputs[0]].shape
  order = None if numbers.out_spec == _NHWC else (0, *numbers.out_spec[2:], numbers.out_spec[1])
  if numbers.lhs_spec != _NHWC:
    x = layouts.transposed(walk, x, (0, *numbers.lhs_spec[2:], numbers.lhs_spec[1]))
  hwio = (*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0])
  codes, scale = w.codes.transpose(hwio), w.scale.transpose(hwio)
  x, padding = _padded(walk, x, codes.shape, p)
  groups = p['feature_group_count']
  op = 'depthwise' if groups == x.shape[3] else 'conv'
  settings = {'strides': p['window_strides'], 'padding': padding, 'dilation': p['rhs_dilation'], 'groups': groups,
              'order': order, 'made': tuple(shape[i] for i in order) if order else shape}
  return Pending(op, (x.index,), shape, settings, w, codes, _per_output(walk, eqn, w, scale), 0.)


def _padded(walk, x, kernel_shape, p):
  """The input and the padding of the convolution: what is neither SAME nor VALID becomes a pad of its own."""
  sizes = [(k - 1) * d + 1 for k, d in zip(kernel_shape[:2], p['rhs_dilation'], strict=True)]
  padding = tuple(map(tuple, p['padding']))
  if padding in (layouts.same_padding(x.shape[1:3], sizes, p['window_strides']), ((0, 0), (0, 0))):
    return x, padding
  return layouts.pad_by(walk, x, ((0, 0), *padding, (0, 0))), ((0, 0), (0, 0))


def dot(walk, eqn, args):
  """FULLY_CONNECTED on a matrix, a 1x1 convolution on an image."""
  x, w = walk.stored(args[0], eqn), _weight(walk, eqn, args[1])
  ((left,), (right,)), batch = eqn.params['dimension_numbers']
  if left != len(x.shape) - 1 or w.codes.ndim != 2 or any(batch) or len(x.shape) not in (2, 4):
    raise walk.refusal(eqn, f'wanted [n, c] or [n, h, w, c] times a matrix, got {x.shape} and {w.codes.shape}')
  codes, scale = (w.codes, w.scale) if right == 0 else (w.codes.T, w.scale.T)
  gain = _per_output(walk, eqn, w, scale)
  shape = walk.program.avals[eqn.outputs[0]].shape
  if len(x.shape) == 2:
    return Pending('dense', (x.index,), shape, {}, w, codes, gain, 0.)
  settings = {'strides': (1, 1), 'padding': ((0, 0), (0, 0)), 'dilation': (1, 1), 'groups': 1}
  op = 'depthwise' if x.shape[3] == 1 else 'conv'
  return Pending(op, (x.index,), shape, settings, w, codes[None, None], gain, 0.)


def _weight(walk, eqn, value):
  if isinstance(value, Kernel):
    return value
  if isinstance(value, Stored | Pending):
    raise walk.refusal(eqn, 'both operands depend on the input')
  path = next((walk.weights[v] for v in eqn.inputs if not isinstance(v, Const) and v in walk.weights), 'constant')
  raise walk.refusal(eqn, f'its kernel {path!r} has no fact (bits and scale): quantize it')


def _per_output(walk, eqn, w, scale):
  flat = scale.reshape(-1, scale.shape[-1]).astype(np.float64)
  if not (flat == flat[0]).all():
    raise walk.refusal(eqn, f'the scale of {w.path!r} varies within an output channel: wanted one per output channel')
  return flat[0]
