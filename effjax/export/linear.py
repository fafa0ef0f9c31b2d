"""Convolutions and products: the kernels that hold weights, and the product of two activations."""
import math

import numpy as np

from effjax.export import layouts
from effjax.export.kernels import Kernel, Pending, Stored
from effjax.export.operator_options import crop_padding
from effjax.graph.trace import Const

_NHWC = (0, 3, 1, 2)
_NONE = ((0, 0), (0, 0))
_POINTWISE = {'strides': (1, 1), 'padding': _NONE, 'dilation': (1, 1), 'groups': 1}


def convolution(walk, eqn, args):
  """CONV_2D, DEPTHWISE_CONV_2D or TRANSPOSE_CONV in NHWC; other layouts get a transpose before and after."""
  x, w = walk.stored(args[0], eqn), _weight(walk, eqn, args[1])
  p, numbers = eqn.params, eqn.params['dimension_numbers']
  if len(x.shape) != 4 or p['batch_group_count'] != 1:
    raise walk.refusal(eqn, f'wanted a 2-D convolution, not grouped over the batch, got an input of shape {x.shape}')
  shape = walk.program.avals[eqn.outputs[0]].shape
  order = None if numbers.out_spec == _NHWC else (0, *numbers.out_spec[2:], numbers.out_spec[1])
  if numbers.lhs_spec != _NHWC:
    x = layouts.transposed(walk, x, (0, *numbers.lhs_spec[2:], numbers.lhs_spec[1]))
  hwio = (*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0])
  codes, gain = w.codes.transpose(hwio), _per_output(walk, eqn, w, w.scale.transpose(hwio))
  made = tuple(shape[i] for i in order) if order else shape
  if any(d != 1 for d in p['lhs_dilation']):
    x, settings = _transposed(walk, eqn, x, codes.shape, made)
    return Pending('transpose_conv', (x.index,), shape, {**settings, 'order': order}, w, codes, gain, 0.)
  x, padding = _padded(walk, x, codes.shape, p)
  groups = p['feature_group_count']
  settings = {'strides': p['window_strides'], 'padding': padding, 'dilation': p['rhs_dilation'], 'groups': groups,
              'order': order, 'made': made}
  return Pending('depthwise' if groups == x.shape[3] else 'conv', (x.index,), shape, settings, w, codes, gain, 0.)


def _padded(walk, x, kernel_shape, p):
  """The input and the padding of the convolution: what is neither SAME nor VALID becomes a pad of its own."""
  sizes = [(k - 1) * d + 1 for k, d in zip(kernel_shape[:2], p['rhs_dilation'], strict=True)]
  padding = tuple(map(tuple, p['padding']))
  if padding in (layouts.same_padding(x.shape[1:3], sizes, p['window_strides']), _NONE):
    return x, padding
  if any(side < 0 for sides in padding for side in sides):
    start = (0, *(max(-low, 0) for low, _ in padding), 0)
    limit = (1, *(n - max(-high, 0) for n, (_, high) in zip(x.shape[1:3], padding)), x.shape[3])
    x = layouts.sliced(walk, x, start, limit, (1,) * 4)
    padding = tuple((max(low, 0), max(high, 0)) for low, high in padding)
  return layouts.pad_by(walk, x, ((0, 0), *padding, (0, 0))), _NONE


def _transposed(walk, eqn, x, kernel_shape, made):
  """The input and the settings of a transposed convolution: it crops as SAME does, or not at all before a slice."""
  p, sizes = eqn.params, kernel_shape[:2]
  strides = tuple(p['lhs_dilation'])
  if any(d != 1 for d in (*p['rhs_dilation'], *p['window_strides'])) or p['feature_group_count'] != 1:
    raise walk.refusal(eqn, 'wanted a transposed convolution without dilation, groups or other strides')
  crop = tuple(tuple(k - 1 - side for side in sides) for k, sides in zip(sizes, p['padding']))
  if crop_padding(sizes, strides, crop) is not None:
    return x, {'strides': strides, 'padding': crop, 'made': made}
  more = [[max(-(side // s), 0) if side < 0 else 0 for side in sides] for s, sides in zip(strides, crop)]
  if any(map(any, more)):  # a border of zeros, whose own results are cropped again
    x = layouts.pad_by(walk, x, ((0, 0), *map(tuple, more), (0, 0)))
    crop = [[c + m * s for c, m in zip(*each)] for s, *each in zip(strides, crop, more)]
  full = tuple((size - 1) * s + k for size, s, k in zip(x.shape[1:3], strides, sizes))
  cut = (0, *(c[0] for c in crop), 0), (1, *(n - c[1] for n, c in zip(full, crop)), made[3])
  return x, {'strides': strides, 'padding': _NONE, 'made': (1, *full, made[3]), 'cut': cut}


def dot(walk, eqn, args):
  """FULLY_CONNECTED, a 1x1 convolution on an image, or BATCH_MATMUL of two activations."""
  if all(isinstance(arg, Stored | Pending) for arg in args):
    return _matmul(walk, eqn, *(walk.stored(arg, eqn) for arg in args))
  x, w = walk.stored(args[0], eqn), _weight(walk, eqn, args[1])
  (left, right), (batch, _) = eqn.params['dimension_numbers']
  if batch or 0 in left:
    raise walk.refusal(eqn, f'wanted [n, ..., c] times a weight, got {x.shape} and {w.codes.shape}')
  free = [i for i in range(w.codes.ndim) if i not in right]
  matrix = lambda a: a.transpose(*right, *free).reshape(math.prod(a.shape[i] for i in right), -1)
  gain, codes = _per_output(walk, eqn, w, matrix(w.scale)), matrix(w.codes)
  shape = walk.program.avals[eqn.outputs[0]].shape
  x = _inner_last(walk, x, left)
  made = (*x.shape[:-1], codes.shape[1])
  if len(x.shape) == 4 and made == shape:
    op = 'depthwise' if x.shape[3] == 1 else 'conv'
    return Pending(op, (x.index,), shape, dict(_POINTWISE), w, codes[None, None], gain, 0.)
  return Pending('dense', (x.index,), shape, {'made': made, 'result': shape}, w, codes, gain, 0.)


def _inner_last(walk, x, axes):
  """The tensor with the axes that are summed over as one, the last."""
  outer = [i for i in range(len(x.shape)) if i not in axes]
  x = layouts.transposed(walk, x, (*outer, *axes))
  shape = (*x.shape[:len(outer)], math.prod(x.shape[len(outer):]))
  return layouts.reshaped(walk, x, shape)


def _matmul(walk, eqn, a, b):
  """[..., m, k] times [..., k, n], or [..., n, k] read the other way round."""
  ((left, right), (batch_a, batch_b)), shape = eqn.params['dimension_numbers'], walk.program.avals[eqn.outputs[0]].shape
  if not batch_a or batch_a[0] or batch_b[0] or len(left) != 1:
    raise walk.refusal(eqn, f'wanted a product within each example, over one axis, got {a.shape} and {b.shape}')
  free = [[i for i in range(len(x.shape)) if i not in (*batch, *inner)]
          for x, batch, inner in ((a, batch_a, left), (b, batch_b, right))]
  rows, columns = (math.prod(x.shape[i] for i in axes) for x, axes in zip((a, b), free))
  outer = tuple(a.shape[i] for i in batch_a)
  a = layouts.reshaped(walk, layouts.transposed(walk, a, (*batch_a, *free[0], *left)), (*outer, rows, -1))
  plain = (*batch_b, *right, *free[1]) == tuple(range(len(b.shape)))
  order = (*batch_b, *right, *free[1]) if plain else (*batch_b, *free[1], *right)
  b = layouts.transposed(walk, b, order)
  b = layouts.reshaped(walk, b, (*outer, -1, columns) if plain else (*outer, columns, -1))
  settings = {'adj_x': False, 'adj_y': not plain, 'made': (*outer, rows, columns), 'result': shape}
  return Pending('matmul', (a.index, b.index), shape, settings)


def identity(walk, eqn, x, constant) -> Pending:
  """`x` as a depthwise 1x1 convolution: what then folds in (BatchNorm before a convolution) costs one exact kernel."""
  rank = len(x.shape)
  axes = [i - constant.ndim for i, n in enumerate(constant.shape) if n > 1 and np.ptp(constant, i).any()] or [-1]
  order = None if axes == [-1] else (*(i for i in range(rank) if i != rank + axes[0]), rank + axes[0])
  source = layouts.transposed(walk, x, order) if order else x
  made = source.shape if rank == 4 else (1, 1, math.prod(x.shape[:-1]), x.shape[-1])
  source = layouts.reshaped(walk, source, made)
  codes = np.full((1, 1, 1, made[3]), 127., np.float32)
  settings = {**_POINTWISE, 'groups': made[3], 'made': made, 'order': order} | ({} if order else {'result': x.shape})
  kernel = Kernel('identity', 8, codes, codes, np.ones_like(codes))
  return Pending('depthwise', (source.index,), x.shape, settings, kernel, codes, np.full(made[3], 1 / 127), 0.)


def _weight(walk, eqn, value):
  if isinstance(value, Kernel):
    return value
  if isinstance(value, Stored | Pending):
    raise walk.refusal(eqn, 'its weight depends on the input')
  path = next((walk.weights[v] for v in eqn.inputs if not isinstance(v, Const) and v in walk.weights), 'constant')
  raise walk.refusal(eqn, f'its kernel {path!r} has no fact (bits and scale): quantize it')


def _per_output(walk, eqn, w, scale):
  flat = scale.reshape(-1, scale.shape[-1]).astype(np.float64)
  if not (flat == flat[0]).all():
    raise walk.refusal(eqn, f'the scale of {w.path!r} varies within an output channel: wanted one per output channel')
  return flat[0]
