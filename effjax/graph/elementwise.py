"""Elementwise primitives: axes are joined entry by entry, and zeros stay zeros if the function maps 0 to 0."""
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from effjax.graph.trace import Eqn
from effjax.graph.values import Analysis, Value, is_zero, single

ELEMENTWISE = frozenset('''
    add sub mul div rem max min pow integer_pow neg sign floor ceil round exp exp2 log log1p expm1 tanh sin cos tan
    asin acos atan atan2 sinh cosh asinh acosh atanh sqrt rsqrt cbrt abs square is_finite not and or xor eq ne lt le
    gt ge eq_to le_to lt_to select_n clamp nextafter erf erfc erf_inv lgamma digamma logistic convert_element_type
    stop_gradient copy copy_p reduce_precision real imag add_any shift_left shift_right_logical
    shift_right_arithmetic population_count optimization_barrier'''.split())
INTEGER = frozenset('not and or xor shift_left shift_right_logical shift_right_arithmetic population_count'.split())


def elementwise(a: Analysis, eqn: Eqn, ins: Sequence[Value], shape: tuple[int, ...], param: Sequence[bool]) -> Value:
  """The result's labels: those of its operands, joined. `param`: which of them are made of parameters."""
  axes, zero = [], []
  for axis, n in enumerate(shape):
    there = [len(v.axes) == len(shape) and len(v.axes[axis]) == n for v in ins]
    first, *others = [v.axes[axis] for v, t in zip(ins, there) if t]
    for other in others:
      a.labels.join(first, other, 'combined entry by entry')
    made_of = [v.axes[axis] for v, t, p in zip(ins, there, param) if t and p]
    factors = made_of[:1] if eqn.name in ('mul', 'div') else made_of  # a product is gated by one factor
    a.labels.made_of += [(first, source) for source in factors if source is not first]
    verdict = vanishes(eqn, ins, [t and v.zero[axis] for v, t in zip(ins, there)])
    if verdict is None:
      a.labels.pin([first], 'not finite where an entry is 0')
    axes.append(first), zero.append(bool(verdict))
  stretched = [_stretched(a, v, shape) for v in ins]
  hosts = {h for h in frozenset().union(*stretched) if vanishes(eqn, ins, [h in s for s in stretched])}
  return Value(tuple(axes), tuple(zero), frozenset(hosts))


def _stretched(a, v, shape):
  """Hosts of an operand, with those of its axes of one entry that the result stretches."""
  if len(v.axes) != len(shape):
    return v.hosts
  return single(a, v, [i for i, n in enumerate(shape) if len(v.axes[i]) == 1 != n])


def vanishes(eqn: Eqn, ins: Sequence[Value], zero: Sequence[bool]) -> bool | None:
  """Whether the result is zero where the marked operands are; None: it is not finite there."""
  if not any(zero):
    return False
  if eqn.name in ('mul', 'real', 'imag'):
    return True
  if eqn.name == 'div':
    return None if zero[1] else zero[0]
  if eqn.name == 'select_n':
    return all(z or is_zero(v) for v, z in zip(ins[1:], zero[1:]))
  if not all(z or v.known is not None for v, z in zip(ins, zero)):
    return False
  values = tuple(0. if z else np.asarray(v.known).item() for v, z in zip(ins, zero))
  out = _at(eqn.primitive, tuple(eqn.params.items()), values)
  return out == 0. if np.isfinite(out) else None


@functools.cache
def _at(primitive, params, values):
  """The size of an elementwise primitive's value at scalars."""
  with jax.ensure_compile_time_eval():
    args = [jnp.asarray(v, jnp.int32 if primitive.name in INTEGER else jnp.float32) for v in values]
    return float(np.abs(np.asarray(primitive.bind(*args, **dict(params)))))
