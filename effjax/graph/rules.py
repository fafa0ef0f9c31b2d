"""What each primitive that is not elementwise does to the labels of its operands' axes.

Sums over an axis whose masked entries are zero do not change when the entries are removed; any other use of them pins.
"""
from collections.abc import Callable, Sequence

import jax
import numpy as np

from effjax.graph.trace import Const, Eqn, Var, execute
from effjax.graph.values import Analysis, Value, is_zero, single, unknown, value_of

PIN = 'effjax.pin'  # what is named so stays
NOT_ZERO = 'a sum over entries that are not 0 when it is masked'
REDUCTIONS = frozenset('reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin'.split())


# --- shape and position -----------------------------------------------------------------------------------------

def _broadcast(a, eqn, ins, shapes, _):
  v, shape = ins[0], shapes[0]
  axes = [a.labels.fresh(n) for n in shape]
  a.labels.repeats.update(label for axis in axes for label in axis.tolist())
  zero = [is_zero(v)] * len(shape)
  for i, axis in enumerate(eqn.params['broadcast_dimensions']):
    if len(v.axes[i]) == shape[axis]:
      axes[axis], zero[axis] = v.axes[i], v.zero[i]
  lost = [i for i, axis in enumerate(eqn.params['broadcast_dimensions']) if len(v.axes[i]) != shape[axis]]
  return [Value(tuple(axes), tuple(zero), single(a, v, lost), v.known)]


def _reshape(a, eqn, ins, shapes, _):
  v, new = ins[0], shapes[0]
  if eqn.params.get('dimensions') is not None:
    return unknown(a, eqn, ins, shapes)
  return [reshape(a, v, new)]


def reshape(a: Analysis, v: Value, new: tuple[int, ...]) -> Value:
  """Labels of a reshaped value: blocks of axes with the same product are merged, then split."""
  axes: list[np.ndarray | None] = [np.zeros(n, np.int64) if n == 1 else None for n in new]
  zero = [True] * len(new)
  for old, out in blocks([len(x) for x in v.axes], new):
    merged = a.labels.merge([v.axes[i] for i in old])
    flag = all(v.zero[i] or a.labels.pinned(v.axes[i]) for i in old)
    for j, part in zip(out, a.labels.split(merged, [new[j] for j in out])):
      axes[j], zero[j] = part, flag
  ones = [i for i, x in enumerate(v.axes) if len(x) == 1]
  return Value(tuple(axes), tuple(zero), single(a, v, ones), v.known)


def blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
  """Which axes of a reshape belong together: minimal runs with equal products; axes of one entry are left out.

  >>> blocks([2, 3, 4], [6, 1, 2, 2])
  [([0, 1], [0]), ([2], [2, 3])]
  """
  a, b = [i for i, n in enumerate(old) if n != 1], [j for j, n in enumerate(new) if n != 1]
  out = []
  while a:
    left, right = [a.pop(0)], [b.pop(0)]
    while (p := np.prod([old[i] for i in left])) != (q := np.prod([new[j] for j in right])):
      left, right = (left + [a.pop(0)], right) if p < q else (left, right + [b.pop(0)])
    out.append((left, right))
  return out


def _squeeze(a, eqn, ins, shapes, _):
  return [reshape(a, ins[0], shapes[0])]


def _name(a, eqn, ins, shapes, _):
  if eqn.params['name'] == PIN:
    a.labels.pin(ins[0].axes, 'pinned by the user')
  return [ins[0]]


def _transpose(a, eqn, ins, shapes, _):
  v, order = ins[0], eqn.params['permutation']
  return [Value(tuple(v.axes[i] for i in order), tuple(v.zero[i] for i in order), v.hosts)]


def _rev(a, eqn, ins, shapes, _):
  v = ins[0]
  return [v._replace(axes=tuple(x[::-1] if i in eqn.params['dimensions'] else x for i, x in enumerate(v.axes)))]


def _slice(a, eqn, ins, shapes, _):
  p, v = eqn.params, ins[0]
  steps = p['strides'] or (1,) * len(v.axes)
  cut = zip(p['start_indices'], p['limit_indices'], steps)
  return [v._replace(axes=tuple(x[s:e:k] for x, (s, e, k) in zip(v.axes, cut)))]


def _split(a, eqn, ins, shapes, _):
  v, axis = ins[0], eqn.params['axis']
  parts = np.split(v.axes[axis], np.cumsum(eqn.params['sizes'])[:-1])
  return [v._replace(axes=(*v.axes[:axis], part, *v.axes[axis + 1:])) for part in parts]


def _concatenate(a, eqn, ins, shapes, _):
  axis = eqn.params['dimension']
  axes = list(ins[0].axes)
  for i in range(len(axes)):
    for v in ins[1:] if i != axis else []:
      a.labels.join(axes[i], v.axes[i], 'laid side by side')
      a.labels.made_of.append((axes[i], v.axes[i]))
  axes[axis] = np.concatenate([v.axes[axis] for v in ins])
  zero = tuple(all(v.zero[i] for v in ins) for i in range(len(axes)))
  return [Value(tuple(axes), zero, frozenset.intersection(*[v.hosts for v in ins]))]


def _stack(a, eqn, ins, shapes, _):
  """A new axis, and along it the operands."""
  axis = eqn.params['axis']
  new = [v._replace(axes=(*v.axes[:axis], np.zeros(1, np.int64), *v.axes[axis:]),
                    zero=(*v.zero[:axis], True, *v.zero[axis:])) for v in ins]
  return _concatenate(a, eqn._replace(params={'dimension': axis}), new, shapes, _)


def _tile(a, eqn, ins, shapes, _):
  return [ins[0]._replace(axes=tuple(np.tile(x, n) for x, n in zip(ins[0].axes, eqn.params['reps'])))]


def _pad(a, eqn, ins, shapes, _):
  v, fill = ins[0], is_zero(ins[1])
  axes = []
  for x, (low, high, inner) in zip(v.axes, eqn.params['padding_config']):
    if low < 0 or high < 0:
      return unknown(a, eqn, ins, shapes)
    padded = a.labels.fresh(int(low + high + len(x) + inner * max(len(x) - 1, 0))) if low or high or inner else x
    if padded is not x:
      padded[low:low + (inner + 1) * len(x):inner + 1] = x
    axes.append(padded)
  return [Value(tuple(axes), tuple(z and fill for z in v.zero), v.hosts if fill else frozenset())]


def _reduce(a, eqn, ins, shapes, param):
  v, gone = ins[0], set(eqn.params['axes'])
  for i in gone:
    if eqn.name == 'reduce_sum' and v.zero[i]:
      (a.labels.contracted if param[0] else a.labels.mixed).append(v.axes[i])
    else:
      a.labels.pin([v.axes[i]], NOT_ZERO if eqn.name == 'reduce_sum' else f'{eqn.name} sees every entry')
  keep = [i for i in range(len(v.axes)) if i not in gone]
  zero = tuple(v.zero[i] and not eqn.name.startswith('arg') for i in keep)
  hosts = v.hosts if not eqn.name.startswith('arg') else frozenset()
  return [Value(tuple(v.axes[i] for i in keep), zero, hosts)]


def _window(a, eqn, ins, shapes, _):
  p, v = eqn.params, ins[0]
  plain = [w == s == b == d == 1 and not any(pad) for w, s, b, d, pad in zip(
      p['window_dimensions'], p['window_strides'], p['base_dilation'], p['window_dilation'], p['padding'])]
  a.labels.pin((x for x, ok in zip(v.axes, plain) if not ok), 'a window slides over it')
  axes = tuple(x if ok else np.zeros(n, np.int64) for x, ok, n in zip(v.axes, plain, shapes[0]))
  return [Value(axes, v.zero, v.hosts)]


def _cumulative(a, eqn, ins, shapes, _):
  v, axis = ins[0], eqn.params['axis']
  a.labels.pin([v.axes[axis]], f'{eqn.name} runs along it')
  zero = eqn.name != 'cumlogsumexp'
  return [v._replace(zero=tuple(z and zero for z in v.zero), hosts=v.hosts if zero else frozenset())]


def _sort(a, eqn, ins, shapes, _):
  axis = eqn.params['dimension']
  a.labels.pin((v.axes[axis] for v in ins), 'sort moves entries along it')
  for i, first in enumerate(ins[0].axes):
    for v in ins[1:]:
      a.labels.join(first, v.axes[i], 'sorted together')
  keys = all(v.zero[i] for v in ins[:eqn.params['num_keys']] for i in range(len(v.axes)) if i != axis)
  one = len(ins) == 1  # several: what is masked in one is moved about by the others
  return [v._replace(zero=v.zero if one or keys else (False,) * len(v.zero), hosts=v.hosts if one else frozenset())
          for v in ins]


def _top_k(a, eqn, ins, shapes, _):
  v, axis = ins[0], eqn.params.get('axis', len(ins[0].axes) - 1)
  a.labels.pin([v.axes[axis]], 'top_k compares its entries')
  axes = tuple(np.zeros(shapes[0][i], np.int64) if i == axis else x for i, x in enumerate(v.axes))
  return [v._replace(axes=axes), Value(axes, (False,) * len(axes))]


def _dynamic_slice(a, eqn, ins, shapes, _):
  """Whole axes pass; those that are cut at a place that is known while running only stay."""
  v = ins[0]
  cut = [len(x) != n for x, n in zip(v.axes, shapes[0])]
  a.labels.pin((x for x, c in zip(v.axes, cut) if c), 'cut at a place that is not known')
  return [v._replace(axes=tuple(np.zeros(n, np.int64) if c else x for x, c, n in zip(v.axes, cut, shapes[0])))]


def _dynamic_update_slice(a, eqn, ins, shapes, _):
  v, update = ins[:2]
  for x, y in zip(v.axes, update.axes):
    if len(x) == len(y):
      a.labels.join(x, y, 'written over each other')
    else:
      a.labels.pin([x, y], 'written at a place that is not known')
  return [Value(v.axes, tuple(p and q for p, q in zip(v.zero, update.zero)), v.hosts & update.hosts)]


def _gather(a, eqn, ins, shapes, _):
  """Table lookup: whole axes of the table pass, those that are looked into stay; positions known in the trace pass."""
  v, p, found = ins[0], eqn.params, static_index(a, eqn)
  dims = p['dimension_numbers']
  if found is not None:
    axis, index, place = found
    rest = [i for i in range(len(v.axes)) if i != axis]
    order = [axis if j == place else rest[j - (j > place)] for j in range(len(shapes[0]))]
    return [Value(tuple(v.axes[i][index] if i == axis else v.axes[i] for i in order), tuple(v.zero[i] for i in order),
                  v.hosts)]
  a.labels.pin(ins[1].axes, 'they are positions')
  whole = [i for i, n in enumerate(p['slice_sizes']) if n == len(v.axes[i]) and i not in dims.start_index_map]
  a.labels.pin((x for i, x in enumerate(v.axes) if i not in whole), 'looked into at positions that are not known')
  axes, zero = [np.zeros(n, np.int64) for n in shapes[0]], [True] * len(shapes[0])
  gone = (*dims.collapsed_slice_dims, *dims.operand_batching_dims)
  for j, i in zip(dims.offset_dims, [i for i in range(len(v.axes)) if i not in gone]):
    if i in whole:
      axes[j], zero[j] = v.axes[i], v.zero[i]
  return [Value(tuple(axes), tuple(zero), v.hosts)]


def static_index(a: Analysis, eqn: Eqn) -> tuple[int, np.ndarray, int] | None:
  """Of a gather that takes entries of one axis at constant positions: (axis, positions, where the result has them)."""
  dims, sizes = eqn.params['dimension_numbers'], eqn.params['slice_sizes']
  shape = [len(x) for x in value_of(a, eqn, 0).axes]
  if len(dims.start_index_map) != 1 or dims.collapsed_slice_dims != dims.start_index_map or dims.operand_batching_dims:
    return None
  axis, index = dims.start_index_map[0], _array(a, eqn.inputs[1])
  if index is None or index.ndim != 2 or not index.size or index.min() < 0 or index.max() >= shape[axis]:
    return None
  if any(n != shape[i] for i, n in enumerate(sizes) if i != axis):
    return None
  return axis, index[:, 0], next(j for j in range(len(shape)) if j not in dims.offset_dims)


def _array(a: Analysis, v: Var | Const) -> np.ndarray | None:
  """The value of a constant, computed if the trace made it; None if it is none, or too long a story."""
  if isinstance(v, Const):
    return np.asarray(v.value)
  eqn = a.constant.get(v)
  args = [None] if eqn is None or eqn.body is not None else [_array(a, u) for u in eqn.inputs]
  if any(x is None for x in args):
    return None
  with jax.ensure_compile_time_eval():
    return np.asarray(execute(eqn, args)[eqn.outputs.index(v)])


# --- contractions -----------------------------------------------------------------------------------------------

def _contract(a, lhs, i, rhs, j, param):
  """Sum over axis i of one operand and j of the other: entries that are zero in either may go."""
  a.labels.join(lhs.axes[i], rhs.axes[j], 'multiplied and summed')
  if not (lhs.zero[i] or rhs.zero[j]):
    a.labels.pin([lhs.axes[i]], NOT_ZERO)
  sides = [v.axes[k] for v, k, p in zip((lhs, rhs), (i, j), param) if p]
  (a.labels.contracted if sides else a.labels.mixed).extend(sides or [lhs.axes[i]])


def _dot(a, eqn, ins, shapes, param):
  lhs, rhs = ins
  (lc, rc), (lb, rb) = eqn.params['dimension_numbers']
  for i, j in zip(lc, rc):
    _contract(a, lhs, i, rhs, j, param)
  axes, zero = [], []
  for i, j in zip(lb, rb):
    a.labels.join(lhs.axes[i], rhs.axes[j], 'multiplied one by one')
    axes.append(lhs.axes[i]), zero.append(lhs.zero[i] or rhs.zero[j])
  for v, used in ((lhs, (*lc, *lb)), (rhs, (*rc, *rb))):
    free = [i for i in range(len(v.axes)) if i not in used]
    axes += [v.axes[i] for i in free]
    zero += [v.zero[i] for i in free]
  return [Value(tuple(axes), tuple(zero), lhs.hosts | rhs.hosts)]


def _conv(a, eqn, ins, shapes, param):
  lhs, rhs = ins
  dims, groups = eqn.params['dimension_numbers'], eqn.params['feature_group_count']
  if eqn.params['batch_group_count'] != 1:
    return unknown(a, eqn, ins, shapes)
  n, f, *space = dims.lhs_spec
  o, i, *taps = dims.rhs_spec
  a.labels.pin([lhs.axes[k] for k in space] + [rhs.axes[k] for k in taps], 'a window slides over it')
  zero = rhs.zero[o]
  if groups == 1:
    _contract(a, lhs, f, rhs, i, param)
  elif len(rhs.axes[i]) == 1:  # depthwise: the input channel and its outputs are one
    a.labels.join(lhs.axes[f][:, None], rhs.axes[o].reshape(groups, -1), 'depthwise: an input and its outputs')
    zero = zero or lhs.zero[f]
  else:  # the same positions in every group
    a.labels.join(lhs.axes[f].reshape(groups, -1), rhs.axes[i][None], 'grouped: the same place in every group')
    outs = rhs.axes[o].reshape(groups, -1)
    a.labels.join(outs, outs[:1], 'grouped: the same place in every group')
    inside = lhs._replace(axes=tuple(x[:len(rhs.axes[i])] if k == f else x for k, x in enumerate(lhs.axes)))
    _contract(a, inside, f, rhs, i, param)
  axes, flags = [np.zeros(k, np.int64) for k in shapes[0]], [True] * len(shapes[0])
  axes[dims.out_spec[0]], flags[dims.out_spec[0]] = lhs.axes[n], lhs.zero[n]
  axes[dims.out_spec[1]], flags[dims.out_spec[1]] = rhs.axes[o], zero
  return [Value(tuple(axes), tuple(flags), lhs.hosts | rhs.hosts)]


RULES: dict[str, Callable] = {
    'broadcast_in_dim': _broadcast, 'reshape': _reshape, 'squeeze': _squeeze, 'expand_dims': _squeeze,
    'transpose': _transpose, 'rev': _rev, 'slice': _slice, 'split': _split, 'concatenate': _concatenate,
    'stack': _stack, 'tile': _tile, 'pad': _pad,
    'gather': _gather, 'dynamic_slice': _dynamic_slice, 'dynamic_update_slice': _dynamic_update_slice,
    'sort': _sort, 'top_k': _top_k, 'name': _name,
    'sharding_constraint': lambda a, eqn, ins, shapes, _: ins,
    **dict.fromkeys(('cumsum', 'cumprod', 'cummax', 'cummin', 'cumlogsumexp'), _cumulative),
    'reduce_window_max': _window, 'reduce_window_min': _window, 'reduce_window_sum': _window,
    'dot_general': _dot, 'conv_general_dilated': _conv, **dict.fromkeys(REDUCTIONS, _reduce)}
