"""Means, maxima, pools and resizing: what joins the values of several places."""
import math

import jax
import numpy as np

from effjax.export import layouts
from effjax.export.kernels import Pending, Stored
from effjax.graph.trace import execute


def mean(walk, eqn, args):
  """MEAN, if the sum is divided by the number of its terms, else SUM."""
  x, axes = walk.stored(args[0], eqn), _axes(walk, eqn)
  count = math.prod(x.shape[i] for i in axes)
  shape = walk.program.avals[eqn.outputs[0]].shape
  return Pending('mean', (x.index,), shape, {'axes': axes, 'keep': False, 'count': count}, gain=np.float64(count))


def largest(walk, eqn, args):
  """REDUCE_MAX."""
  x, axes = walk.stored(args[0], eqn), _axes(walk, eqn)
  return walk.emit('reduce_max', x, walk.program.avals[eqn.outputs[0]].shape, {'axes': axes, 'keep': False})


def _axes(walk, eqn):
  axes = tuple(eqn.params['axes'])
  if 0 in axes:
    raise walk.refusal(eqn, 'it reduces over the batch')
  return axes


def pool(walk, eqn, args):
  """MAX_POOL_2D, or the sum of an AVERAGE_POOL_2D, which needs its division."""
  x, p = walk.stored(args[0], eqn), eqn.params
  window, strides, padding = (tuple(p[name]) for name in ('window_dimensions', 'window_strides', 'padding'))
  flat = len(x.shape) == 4 and window[0] == window[3] == strides[0] == strides[3] == 1
  plain = all(d == 1 for d in (*p['base_dilation'], *p['window_dilation']))
  if not (flat and plain):
    raise walk.refusal(eqn, f'wanted a 2-D NHWC window, not dilated, got {window}')
  settings = {'window': window[1:3], 'strides': strides[1:3], 'padding': tuple(map(tuple, padding[1:3]))}
  shape = walk.program.avals[eqn.outputs[0]].shape
  if eqn.name == 'reduce_window_max':
    return _windows(walk, 'max_pool', x, shape, settings, lowest=True)
  with jax.ensure_compile_time_eval():
    counts = np.asarray(execute(eqn, [np.ones(x.shape, np.float32)])[0], np.float64)
  return Pending('pool_sum', (x.index,), shape, settings, gain=counts)


def _windows(walk, op, x, shape, settings, **pad):
  """The kernel, after a PAD if its padding is neither SAME nor VALID, or if zeros count (`pad` given)."""
  same = layouts.same_padding(x.shape[1:3], settings['window'], settings['strides'])
  none = ((0, 0), (0, 0))
  if settings['padding'] != none and (settings['padding'] != same or pad == {}):
    x = layouts.pad_by(walk, x, ((0, 0), *settings['padding'], (0, 0)), **pad)
    settings = {**settings, 'padding': none}
  return walk.emit(op, x, shape, settings)


def averaged(walk, eqn, value, factor):
  """AVERAGE_POOL_2D: the sum over a window, divided by how many are in it, or with zeros by its size."""
  x, zeros_count = Stored(value.inputs[0], walk.tensors(Stored(value.inputs[0], ())).shape), False
  if not np.allclose(value.gain * factor, 1, rtol=1e-6):
    zeros_count = np.allclose(np.prod(value.settings['window']) * factor, 1, rtol=1e-6)
    if not zeros_count:
      raise walk.refusal(eqn, 'a sum over windows that is no average has no kernel: divide by the size of the window')
  settings = value.settings
  same = layouts.same_padding(x.shape[1:3], settings['window'], settings['strides'])
  if zeros_count:
    return _windows(walk, 'average_pool', x, value.shape, settings)
  if settings['padding'] not in (same, ((0, 0), (0, 0))):
    raise walk.refusal(eqn, f'an average with padding {settings["padding"]} that does not count zeros has no kernel: '
                            'use SAME, VALID or count_include_pad=True')
  return walk.emit('average_pool', x, value.shape, settings)


def resize(walk, eqn, args):
  """RESIZE_BILINEAR, RESIZE_NEAREST_NEIGHBOR."""
  x = walk.stored(args[0], eqn)
  return walk.emit(eqn.name, x, walk.program.avals[eqn.outputs[0]].shape, dict(eqn.params))
