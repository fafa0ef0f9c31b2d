"""What each primitive does to the labels of its operands' axes. An unknown primitive pins all that it touches.

Beside its label, each axis of a value carries `zero`: whether an entry whose label is masked holds zeros. Sums
over such an axis do not change when the entry is removed; any other use of it pins. `hosts` of a value are labels
of single entries (an operator's probability) that it is multiplied by: masked, the whole value is zero.
"""
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax.graph.labels import Labels
from effjax.graph.trace import Const, Eqn, Program, Var, derivative, execute, weights

ELEMENTWISE = frozenset('''
    add sub mul div rem max min pow integer_pow neg sign floor ceil round exp exp2 log log1p expm1 tanh sin cos tan
    asin acos atan atan2 sinh cosh asinh acosh atanh sqrt rsqrt cbrt abs square is_finite not and or xor eq ne lt le
    gt ge eq_to le_to lt_to select_n clamp nextafter erf erfc erf_inv lgamma digamma logistic convert_element_type
    stop_gradient copy copy_p reduce_precision real imag add_any shift_left shift_right_logical
    shift_right_arithmetic population_count optimization_barrier'''.split())
REDUCTIONS = frozenset('reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin'.split())


class Value(NamedTuple):
  """What is known of an array: a label per entry of each axis, `zero` per axis, hosts, the value if constant."""
  axes: tuple[np.ndarray, ...]
  zero: tuple[bool, ...]
  hosts: frozenset[int] = frozenset()
  known: np.ndarray | None = None


class Analysis(NamedTuple):
  """The labels of every variable of a program. `unknown`: (primitive, scope) that pinned what they touched.

  derivatives: for each custom_jvp/vjp equation (by its first output), the program of its derivative.
  """
  labels: Labels
  values: dict[Var, Value]
  constants: dict[tuple[Var, int], Value]
  derivatives: dict[Var, Program]
  unknown: list[tuple[str, str]]


def propagate(program: Program) -> Analysis:
  """Labels for every variable of `program`: parameters' axes are free, arguments and results are pinned."""
  a = Analysis(Labels(), {}, {}, {}, [])
  for v in program.inputs:
    a.values[v] = _leaf(a, program.avals[v].shape) if v in program.paths else _fixed(program.avals[v].shape)
  names = weights(program)
  run(a, program, names)
  for v in program.outputs:
    if not isinstance(v, Const):
      a.labels.pin(a.values[v].axes)
  return a


def run(a: Analysis, program: Program, names: dict[Var, str]) -> None:
  """Labels for the equations of `program`, whose inputs have theirs."""
  for eqn in program.eqns:
    ins = [value_of(a, eqn, i) for i in range(len(eqn.inputs))]
    shapes = [program.avals[v].shape for v in eqn.outputs]
    if all(v.known is not None for v in ins) and all(np.prod(s, dtype=int) <= 1 for s in shapes):
      outs = _constant(eqn, ins, shapes)
    elif eqn.body is not None:
      outs = _body(a, program, eqn, ins, names)
    elif eqn.name in ELEMENTWISE:
      outs = [_elementwise(a, eqn, ins, s) for s in shapes]
      if len(shapes) > 1:
        outs = [_elementwise(a, eqn, [v], s) for v, s in zip(ins, shapes)]
    elif rule := RULES.get(eqn.name.removesuffix('_p')):
      param = [not isinstance(v, Const) and v in names for v in eqn.inputs]
      outs = rule(a, eqn, ins, shapes, param)
    else:
      outs = _unknown(a, eqn, ins, shapes)
    a.values.update(zip(eqn.outputs, outs, strict=True))


def _constant(eqn, ins, shapes):
  with jax.ensure_compile_time_eval():
    outs = execute(eqn, [v.known for v in ins])
  return [Value(v.axes, v.zero, known=np.asarray(x)) for v, x in zip(map(_fixed, shapes), outs)]


def _leaf(a, shape):
  return Value(tuple(a.labels.fresh(n) if n > 1 else np.zeros(n, np.int64) for n in shape), (True,) * len(shape))


def _fixed(shape):
  return Value(tuple(np.zeros(n, np.int64) for n in shape), (True,) * len(shape))


def value_of(a: Analysis, eqn: Eqn, i: int) -> Value:
  """What is known of the equation's input i, a variable or a constant."""
  v = eqn.inputs[i]
  if not isinstance(v, Const):
    return a.values[v]
  if np.ndim(v.value) == 0:
    return Value((), (), known=np.asarray(v.value))
  if (eqn.outputs[0], i) not in a.constants:
    axes = tuple(a.labels.fresh(n) for n in np.shape(v.value))
    known = np.asarray(v.value).ravel()[0] if np.size(v.value) == 1 else None
    a.constants[eqn.outputs[0], i] = Value(axes, (False,) * len(axes), known=known)
  return a.constants[eqn.outputs[0], i]


def _unknown(a, eqn, ins, shapes):
  for v in ins:
    a.labels.pin(v.axes)
  a.unknown.append((eqn.name, eqn.scope))
  return [_fixed(s) for s in shapes]


def _body(a, program, eqn, ins, names):
  """A custom_jvp/vjp call: its body, and the program of its derivative, whose shapes shrink with it."""
  named = {b: names[v] for b, v in zip(eqn.body.inputs, eqn.inputs) if not isinstance(v, Const) and v in names}
  outs = _enter(a, eqn.body, ins, named)
  if any(not a.labels.pinned(x) for v in ins for x in v.axes):
    moved_program, moving = derivative(eqn, program.avals)
    moved = [ins[i] for i in moving]
    if eqn.name == 'custom_jvp_call':
      pairs = zip([*outs, *outs], _enter(a, moved_program, [*ins, *map(_vanishing, moved)], {}))
    else:
      pairs = zip(moved, _enter(a, moved_program, [*ins, *map(_vanishing, outs)], {}))
    for x, y in [axes for v, w in pairs for axes in zip(v.axes, w.axes)]:
      a.labels.join(x, y)
    a.derivatives[eqn.outputs[0]] = moved_program
  return outs


def _enter(a, program, ins, named):
  a.values.update(zip(program.inputs, ins, strict=True))
  run(a, program, weights(program._replace(paths=named)))
  return [a.values[v] if not isinstance(v, Const) else _fixed(np.shape(v.value)) for v in program.outputs]


def _vanishing(v):
  return v._replace(zero=(True,) * len(v.axes), known=None)


# --- elementwise ------------------------------------------------------------------------------------------------

def _elementwise(a, eqn, ins, shape):
  axes, zero = [], []
  for axis, n in enumerate(shape):
    there = [len(v.axes) == len(shape) and len(v.axes[axis]) == n for v in ins]
    first, *others = [v.axes[axis] for v, t in zip(ins, there) if t]
    for other in others:
      a.labels.join(first, other)
    verdict = vanishes(eqn, ins, [t and v.zero[axis] for v, t in zip(ins, there)])
    if verdict is None:
      a.labels.pin([first])
    axes.append(first), zero.append(bool(verdict))
  stretched = [_stretched(a, v, shape) for v in ins]
  hosts = {h for h in frozenset().union(*stretched) if vanishes(eqn, ins, [h in s for s in stretched])}
  return Value(tuple(axes), tuple(zero), frozenset(hosts))


def _stretched(a, v, shape):
  """Hosts of an operand, with those of its axes of one entry that the result stretches."""
  if len(v.axes) != len(shape):
    return v.hosts
  return v.hosts | _single(a, [v.axes[i] for i, n in enumerate(shape) if len(v.axes[i]) == 1 != n],
                           [v.zero[i] for i, n in enumerate(shape) if len(v.axes[i]) == 1 != n])


def _single(a, axes, zero):
  """The free labels of axes of one entry that disappear: from now on the whole value hangs on them."""
  hosts = {int(x[0]) for x, z in zip(axes, zero) if z and len(x) == 1 and not a.labels.pinned(x)}
  a.labels.guards |= hosts
  return frozenset(hosts)


def vanishes(eqn: Eqn, ins: Sequence[Value], zero: Sequence[bool]) -> bool | None:
  """Whether the result is zero where the marked operands are; None: it is not finite there."""
  if not any(zero):
    return False
  if eqn.name == 'mul':
    return True
  if eqn.name == 'div':
    return None if zero[1] else zero[0]
  if eqn.name == 'select_n':
    return all(z or _is_zero(v) for v, z in zip(ins[1:], zero[1:]))
  if not all(z or v.known is not None for v, z in zip(ins, zero)):
    return False
  values = tuple(0. if z else np.asarray(v.known).item() for v, z in zip(ins, zero))
  out = _at(eqn.primitive, tuple(eqn.params.items()), values)
  return out == 0. if np.isfinite(out) else None


def _is_zero(v):
  return v.known is not None and not np.any(v.known)


@functools.cache
def _at(primitive, params, values):
  """An elementwise primitive at scalars."""
  with jax.ensure_compile_time_eval():
    integer = primitive.name in ('not', 'and', 'or', 'xor')
    args = [jnp.asarray(v, jnp.int32 if integer else jnp.float32) for v in values]
    return float(np.asarray(primitive.bind(*args, **dict(params)), np.float64))


# --- shape and position -----------------------------------------------------------------------------------------

def _broadcast(a, eqn, ins, shapes, _):
  v, shape = ins[0], shapes[0]
  axes = [a.labels.fresh(n) for n in shape]
  zero = [_is_zero(v)] * len(shape)
  for i, axis in enumerate(eqn.params['broadcast_dimensions']):
    if len(v.axes[i]) == shape[axis]:
      axes[axis], zero[axis] = v.axes[i], v.zero[i]
  lost = [i for i, axis in enumerate(eqn.params['broadcast_dimensions']) if len(v.axes[i]) != shape[axis]]
  hosts = v.hosts | _single(a, [v.axes[i] for i in lost], [v.zero[i] for i in lost])
  return [Value(tuple(axes), tuple(zero), hosts, v.known)]


def _reshape(a, eqn, ins, shapes, _):
  v, new = ins[0], shapes[0]
  if eqn.params.get('dimensions') is not None:
    return _unknown(a, eqn, ins, shapes)
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
  hosts = v.hosts | _single(a, [v.axes[i] for i in ones], [v.zero[i] for i in ones])
  return Value(tuple(axes), tuple(zero), hosts, v.known)


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
      a.labels.join(axes[i], v.axes[i])
  axes[axis] = np.concatenate([v.axes[axis] for v in ins])
  zero = tuple(all(v.zero[i] for v in ins) for i in range(len(axes)))
  return [Value(tuple(axes), zero, frozenset.intersection(*[v.hosts for v in ins]))]


def _pad(a, eqn, ins, shapes, _):
  v, fill = ins[0], _is_zero(ins[1])
  axes = []
  for x, (low, high, inner) in zip(v.axes, eqn.params['padding_config']):
    if low < 0 or high < 0:
      return _unknown(a, eqn, ins, shapes)
    padded = a.labels.fresh(int(low + high + len(x) + inner * max(len(x) - 1, 0))) if low or high or inner else x
    if padded is not x:
      padded[low:low + (inner + 1) * len(x):inner + 1] = x
    axes.append(padded)
  return [Value(tuple(axes), tuple(z and fill for z in v.zero), v.hosts if fill else frozenset())]


def _reduce(a, eqn, ins, shapes, param):
  v, gone = ins[0], set(eqn.params['axes'])
  for i in gone:
    if eqn.name == 'reduce_sum' and v.zero[i]:
      if not param[0]:
        a.labels.mixed.append(v.axes[i])
    else:
      a.labels.pin([v.axes[i]])
  keep = [i for i in range(len(v.axes)) if i not in gone]
  zero = tuple(v.zero[i] and not eqn.name.startswith('arg') for i in keep)
  hosts = v.hosts if not eqn.name.startswith('arg') else frozenset()
  return [Value(tuple(v.axes[i] for i in keep), zero, hosts)]


def _window(a, eqn, ins, shapes, _):
  p, v = eqn.params, ins[0]
  plain = [w == s == b == d == 1 and not any(pad) for w, s, b, d, pad in zip(
      p['window_dimensions'], p['window_strides'], p['base_dilation'], p['window_dilation'], p['padding'])]
  a.labels.pin(x for x, ok in zip(v.axes, plain) if not ok)
  axes = tuple(x if ok else np.zeros(n, np.int64) for x, ok, n in zip(v.axes, plain, shapes[0]))
  return [Value(axes, v.zero, v.hosts)]


def _iota(a, eqn, ins, shapes, _):
  return [_fixed(shapes[0])]


# --- contractions -----------------------------------------------------------------------------------------------

def _contract(a, lhs, i, rhs, j, param):
  """Sum over axis i of one operand and j of the other: entries that are zero in either may go."""
  a.labels.join(lhs.axes[i], rhs.axes[j])
  if not (lhs.zero[i] or rhs.zero[j]):
    a.labels.pin([lhs.axes[i]])
  sides = [v.axes[k] for v, k, p in zip((lhs, rhs), (i, j), param) if p]
  (a.labels.contracted if sides else a.labels.mixed).extend(sides or [lhs.axes[i]])


def _dot(a, eqn, ins, shapes, param):
  lhs, rhs = ins
  (lc, rc), (lb, rb) = eqn.params['dimension_numbers']
  for i, j in zip(lc, rc):
    _contract(a, lhs, i, rhs, j, param)
  axes, zero = [], []
  for i, j in zip(lb, rb):
    a.labels.join(lhs.axes[i], rhs.axes[j])
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
    return _unknown(a, eqn, ins, shapes)
  n, f, *space = dims.lhs_spec
  o, i, *taps = dims.rhs_spec
  a.labels.pin([lhs.axes[k] for k in space] + [rhs.axes[k] for k in taps])
  zero = rhs.zero[o]
  if groups == 1:
    _contract(a, lhs, f, rhs, i, param)
  elif len(rhs.axes[i]) == 1:  # depthwise: the input channel and its outputs are one
    a.labels.join(lhs.axes[f][:, None], rhs.axes[o].reshape(groups, -1))
    zero = zero or lhs.zero[f]
  else:  # the same positions in every group
    a.labels.join(lhs.axes[f].reshape(groups, -1), rhs.axes[i][None])
    outs = rhs.axes[o].reshape(groups, -1)
    a.labels.join(outs, outs[:1])
    inside = lhs._replace(axes=tuple(x[:len(rhs.axes[i])] if k == f else x for k, x in enumerate(lhs.axes)))
    _contract(a, inside, f, rhs, i, param)
  axes, flags = [np.zeros(k, np.int64) for k in shapes[0]], [True] * len(shapes[0])
  axes[dims.out_spec[0]], flags[dims.out_spec[0]] = lhs.axes[n], lhs.zero[n]
  axes[dims.out_spec[1]], flags[dims.out_spec[1]] = rhs.axes[o], zero
  return [Value(tuple(axes), tuple(flags), lhs.hosts | rhs.hosts)]


RULES: dict[str, Callable] = {
    'broadcast_in_dim': _broadcast, 'reshape': _reshape, 'squeeze': _squeeze, 'expand_dims': _squeeze,
    'transpose': _transpose, 'rev': _rev, 'slice': _slice, 'split': _split, 'concatenate': _concatenate, 'pad': _pad,
    'reduce_window_max': _window, 'reduce_window_min': _window, 'reduce_window_sum': _window, 'iota': _iota,
    'dot_general': _dot, 'conv_general_dilated': _conv, **dict.fromkeys(REDUCTIONS, _reduce)}
