"""What only moves integers: reshape, transpose, slice, pad, concatenate."""
import math

import numpy as np

from effjax.errors import EffjaxError
from effjax.export.kernels import Pending, Stored


def same_padding(shape, sizes, strides):
  """The padding of each image axis that is called SAME: as much after as before, or one more."""
  total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(shape, sizes, strides, strict=True)]
  return tuple((t // 2, t - t // 2) for t in total)


def reshape(walk, eqn, args):
  """reshape, squeeze, expand_dims, and broadcast_in_dim, which may also stretch a tensor for a product."""
  value, shape = args[0], walk.program.avals[eqn.outputs[0]].shape
  if isinstance(value, Pending):
    return _pending(walk, eqn, value, shape)
  value = walk.broadcastable(value, eqn)
  if eqn.name == 'broadcast_in_dim' and math.prod(shape) != math.prod(value.shape):
    at = eqn.params['broadcast_dimensions']
    ones = tuple(value.shape[at.index(i)] if i in at else 1 for i in range(len(shape)))
    return Stored(reshaped(walk, value, ones).index, shape) if ones[0] == 1 else _batch(walk, eqn, value, shape)
  value = walk.stored(value, eqn)
  return reshaped(walk, value, shape) if shape[:1] == (1,) else _batch(walk, eqn, value, shape)


def _batch(walk, eqn, value, shape):
  raise walk.refusal(eqn, f'{value.shape} to {shape}: the batch must stay axis 0')


def reshaped(walk, x, shape):
  """RESHAPE, if it does anything; one size may be -1."""
  shape = tuple(np.empty(x.shape, bool).reshape(shape).shape)
  return x if shape == x.shape else walk.emit('reshape', x, shape, {'shape': shape[1:]})


def _pending(walk, eqn, value, shape):
  if value.op != 'mean' or math.prod(shape) != math.prod(value.shape):
    raise walk.refusal(eqn, f'the result of {value.op} has no range before it')
  source = walk.tensors(Stored(value.inputs[0], ())).shape
  kept = tuple(1 if i in value.settings['axes'] else n for i, n in enumerate(source))
  keep = shape == kept
  return value._replace(shape=shape, settings={**value.settings, 'keep': keep, 'result': shape,
                                               'made': kept if keep else value.settings.get('made', value.shape)})


def transpose(walk, eqn, args):
  """TRANSPOSE."""
  return transposed(walk, walk.stored(args[0], eqn), tuple(eqn.params['permutation']))


def transposed(walk, x, permutation):
  """TRANSPOSE; a transpose of a transpose back is what it came from."""
  if permutation[0]:
    raise EffjaxError(f'finalize: {walk.tensors(x).name!r} is transposed by {permutation}: the batch must stay axis 0')
  shape = tuple(x.shape[i] for i in permutation)
  if permutation == tuple(range(len(permutation))):
    return x
  maker = walk.nodes[x.index - len(walk.inputs)] if x.index >= len(walk.inputs) else None
  if maker and maker.op == 'transpose' and maker.settings['permutation'] == tuple(np.argsort(permutation)):
    return Stored(maker.inputs[0], shape)
  return walk.emit('transpose', x, shape, {'permutation': permutation})


def pad(walk, eqn, args):
  """PAD, with zeros."""
  x, config = walk.stored(args[0], eqn), eqn.params['padding_config']
  if any(min(sides) < 0 or sides[2] for sides in config) or any(config[0]) or np.any(np.asarray(args[1]) != 0):
    raise walk.refusal(eqn, 'wanted zeros around the image')
  return pad_by(walk, x, tuple((low, high) for low, high, _ in config))


def pad_by(walk, x, padding, **settings):
  """PAD by (before, after) on each axis, with zeros, or with the lowest code if `lowest` is True."""
  shape = tuple(n + low + high for n, (low, high) in zip(x.shape, padding, strict=True))
  return walk.emit('pad', x, shape, {'padding': tuple(map(tuple, padding)), **settings})


def cut(walk, eqn, args):
  """SLICE, or STRIDED_SLICE."""
  p = eqn.params
  x, strides = walk.stored(args[0], eqn), p['strides'] or (1,) * len(p['start_indices'])
  return sliced(walk, x, p['start_indices'], p['limit_indices'], strides)


def sliced(walk, x, start, limit, strides):
  """The part of a tensor from `start` to before `limit`."""
  strides = tuple(strides) if len(strides) == len(start) else (1,) * len(start)
  shape = tuple(-(-(b - a) // s) for a, b, s in zip(start, limit, strides, strict=True))
  settings = {'start': tuple(start), 'limit': tuple(limit), 'strides': strides}
  return x if shape == x.shape else walk.emit('slice', x, shape, settings)


def split(walk, eqn, args):
  """A SLICE for each part."""
  x, axis, sizes = walk.stored(args[0], eqn), eqn.params['axis'], eqn.params['sizes']
  ends = np.cumsum((0, *sizes)).tolist()
  start = lambda a: tuple(a if j == axis else 0 for j in range(len(x.shape)))
  limit = lambda b: tuple(b if j == axis else n for j, n in enumerate(x.shape))
  return [sliced(walk, x, start(a), limit(b), (1,)) for a, b in zip(ends, ends[1:])]


def concatenate(walk, eqn, args):
  """CONCATENATION."""
  if eqn.params['dimension'] == 0:
    raise walk.refusal(eqn, 'it joins batches')
  parts = [walk.stored(arg, eqn) for arg in args]
  shape = walk.program.avals[eqn.outputs[0]].shape
  return Pending('concat', tuple(part.index for part in parts), shape, {'axis': eqn.params['dimension']})
