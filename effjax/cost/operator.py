"""The device's operator that a row of a profile is."""
import math
from typing import NamedTuple

import numpy as np

from effjax.cost.latency_table import Op
from effjax.errors import EffjaxError
from effjax.graph.profile import Row
from effjax.graph.values import Axes


class Ends(NamedTuple):
  """The axes of the activations that a row's operator reads at one place and makes there: `cin` and `cout` entries."""
  cin: Axes
  cout: Axes


def operator(row: Row) -> Op:
  """The operator of a row at full width.

  Raises:
    EffjaxError: a transposed convolution, one whose strides or dilations differ, or a product of two activations.
  """
  cin, cout = (math.prod(map(len, axes)) for axes in ends(row))
  made = math.prod(map(len, row.out_axes)) // cout
  if row.kind == 'dense':
    return Op('dense', (1, 1), 1, 1, 1, (1, made), cin, cout)._replace(kind='dense' if made == 1 else 'conv')
  kernel, last = _layout(row)
  place = lambda axes: tuple(map(len, axes[1:-1] if last else axes[2:]))
  read, size = place(row.in_axes), place(row.out_axes)
  if any(len(a) != len(b) for a, b in zip(row.macs_axes, row.out_axes)):  # the zeros between entries do not count
    raise EffjaxError(f'latency: {row.path!r} is a transposed convolution ({read} to {size}), which is not measured: '
                      'measure the file of its network with export.latency_ms')
  inputs = len(row.in_axes[-1 if last else 1])
  groups = {'conv': 1, 'grouped': inputs // cin, 'depthwise': cout // inputs}[row.kind]
  if len(set(row.strides)) > 1 or len(set(row.dilation)) > 1:
    raise EffjaxError(f'latency: {row.path!r} has strides {row.strides} and dilation {row.dilation}, wanted the same '
                      'along all axes: measure the file of its network with export.latency_ms')
  return Op(row.kind, kernel, row.strides[0], row.dilation[0], groups, size, cin, cout)


def ends(row: Row) -> Ends:
  """The axes whose entries the operator's channel counts are.

  Raises:
    EffjaxError: a product of two activations.
  """
  if row.kind == 'matmul':
    raise EffjaxError('latency: a product of two activations (attention) is not measured: measure the file of its '
                      'network with export.latency_ms')
  summed = row.macs_axes[len(row.out_axes):]
  if row.kind != 'dense':
    return Ends(summed, row.out_axes[-1:] if _layout(row)[1] else row.out_axes[1:2])
  free = len(row.weight_axes) - len(summed)
  count = math.prod(map(len, row.weight_axes)) // math.prod(map(len, summed))
  last = row.out_axes[len(row.out_axes) - free:]
  return Ends(summed, last if math.prod(map(len, last)) == count else row.out_axes[:free])


def _layout(row):
  """The kernel's size of a convolution, and whether channels are the last axis of its activations."""
  w, inside = tuple(map(len, row.weight_axes)), len(row.macs_axes[-1])
  hwio = math.prod(w[:-2]) == row.repeats and w[-2] == inside
  made = row.weight_axes[-1] if hwio else row.weight_axes[0]
  return w[:-2] if hwio else w[2:], np.array_equal(row.out_axes[-1], made)
