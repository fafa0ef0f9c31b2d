"""How each primitive of a traced function becomes a kernel: one handler `(walk, eqn, args) -> value` each."""
import math

import jax
import jax.numpy as jnp
import numpy as np

from effjax.errors import EffjaxError
from effjax.export import kernels, layouts, linear, reductions
from effjax.export.kernels import Kernel, Pending, Stored
from effjax.export.network import Node, Tensor
from effjax.graph.places import CLAMPS, EPSILON, FUNCTIONS, POSITIVE, clamps_alone
from effjax.graph.trace import Const, execute

_ENDS = np.float32(-math.inf), np.float32(math.inf)
_LAYOUT = frozenset({'reshape', 'transpose', 'squeeze', 'expand_dims', 'broadcast_in_dim', 'slice', 'copy', 'copy_p'})


def concrete(eqn, args):
  """An equation of constants, computed; a kernel with a fact keeps its codes under a change of layout."""
  held = [arg for arg in args if isinstance(arg, Kernel)]
  plain = lambda field: [getattr(arg, field) if isinstance(arg, Kernel) else arg for arg in args]
  with jax.ensure_compile_time_eval():
    if len(held) == 1 and _identity(eqn, args):
      return held
    if len(held) == 1 and eqn.name in _LAYOUT:
      parts = {field: np.asarray(execute(eqn, plain(field))[0]) for field in ('value', 'codes', 'scale')}
      return [held[0]._replace(**parts)]
    return list(execute(eqn, plain('value')))


def _identity(eqn, args):
  """True for a conversion to another floating point type and for a multiplication by 1."""
  if eqn.name == 'convert_element_type':
    return is_float(eqn.params['new_dtype'])
  others = [arg for arg in args if not isinstance(arg, Kernel)]
  return eqn.name == 'mul' and len(others) == 1 and bool(np.all(np.asarray(others[0]) == 1))


def is_float(dtype) -> bool:
  """True for the floating point types, bfloat16 among them."""
  return bool(jnp.issubdtype(dtype, jnp.floating))


def at(value, i: int):
  """Entry i of a constant's first axis, codes too."""
  if isinstance(value, Kernel):
    return value._replace(value=value.value[i], codes=value.codes[i], scale=value.scale[i])
  if isinstance(value, Stored | Pending):
    raise EffjaxError('finalize: a scan over activations cannot run on integers: scan over parameters')
  return value[i]


def stack(walk, eqn, parts):
  """The results of a loop's iterations, if they are constants."""
  if any(isinstance(part, Stored | Pending | Kernel) for part in parts):
    raise walk.refusal(eqn, 'it stacks activations: return only what it carries')
  return np.stack(parts)


def constant(walk, tap, value) -> Stored:
  """A constant as a tensor of integers."""
  value = np.asarray(value.value if isinstance(value, Kernel) else value, np.float64)
  tensor, top = walk.tensor(tap, value.shape), 2 ** (walk.bits - 1)
  codes = np.clip(np.rint(value / tensor.scale) + tensor.zero_point, -top, top - 1)
  return walk.append(Node('constant', (), tensor, '', {}, codes.astype(f'int{walk.bits}')))


def affine(walk, eqn, args):
  """Sums and products: of two tensors a kernel, with constants folded into what came before."""
  varying = [i for i, arg in enumerate(args) if isinstance(arg, Stored | Pending)]
  if len(varying) == 2:
    return _pair(walk, eqn, args)
  value = args[varying[0]]
  other = next((arg for i, arg in enumerate(args) if i not in varying), -1.)
  other = np.asarray(other.value if isinstance(other, Kernel) else other, np.float64)
  if eqn.name == 'div' and (varying[0] == 1 or not other.all()):
    raise walk.refusal(eqn, 'wanted a divisor that is a constant other than 0')
  if eqn.name in ('mul', 'div', 'neg'):
    return _folded(walk, eqn, value, 1 / other if eqn.name == 'div' else other, np.float64(0))
  if eqn.name == 'sub' and varying[0] == 1:
    return _folded(walk, eqn, value, np.float64(-1), other)
  return _folded(walk, eqn, value, np.float64(1), -other if eqn.name == 'sub' else other)


def _folded(walk, eqn, value, factor, term):
  """`value * factor + term`: value itself if it is the identity, 0 if factor is (an operator not chosen), or folded."""
  if not np.any(factor):
    return np.zeros(value.shape, np.float32) + np.asarray(term, np.float32)
  if isinstance(value, Pending) and value.op == 'pool_sum' and not np.any(term):  # divided by 1, too: one pixel
    return reductions.averaged(walk, eqn, value, factor)
  if np.all(factor == 1) and not np.any(term):
    return value
  if isinstance(value, Stored):
    value = walk.stored(value, eqn)
    if np.size(np.unique(factor)) == 1 and np.min(factor) > 0 and not np.any(term):
      return _relabelled(walk, value, float(np.min(factor)))
    if not np.any(factor != 1) and _is_epsilon(walk, eqn, value, term):
      return value
    value = linear.identity(walk, eqn, value, (factor if np.any(factor != 1) else term))
  for step, operand, neutral in ((kernels.scaled, factor, 1), (kernels.shifted, term, 0)):
    if np.any(operand != neutral):
      value = step(value, operand)
      if isinstance(value, str):
        raise walk.refusal(eqn, value)
  return value


def _relabelled(walk, value, factor):
  """The same integers, which now stand for `factor` times as much: a product with a constant, exact."""
  name, bits = walk.tensors(value).name, walk.bits
  top = 2 ** (bits - 1) - 1
  one = Tensor(walk.unused(f'{name}/factor'), (1,) * len(value.shape), float(np.float32(factor / top)), 0, bits)
  constant = walk.append(Node('constant', (), one, '', {}, np.full(one.shape, top, f'int{bits}')))
  source = walk.tensors(value)
  output = source._replace(name=walk.unused(f'{name}/scaled'), scale=float(np.float32(source.scale * factor)))
  out = walk.append(Node('mul', (value.index, constant.index), output, '', {}))
  return Stored(out.index, value.shape)


def _is_epsilon(walk, eqn, value, term):
  """True for what is added before a root, less than half a step: the kernel of the root takes 0 as it is."""
  readers, made = walk.readers.get(eqn.outputs[0], []), walk.tensors(value)
  root = bool(readers) and all(other is not None and other.name in POSITIVE for other in readers)
  if root and made.scale / 2 <= np.max(term) <= EPSILON:
    raise walk.refusal(eqn, f'{np.max(term):g} is added to {made.name!r} before a root, half of its step '
                            f'{made.scale:.3g} or more: widen its range')
  return root and 0 <= np.max(term) < made.scale / 2


def _pair(walk, eqn, args):
  op = {'add_any': 'add', 'square': 'mul', 'integer_pow': 'mul'}.get(eqn.name, eqn.name)
  if op not in ('add', 'sub', 'mul') or eqn.params.get('y', 2) != 2:
    raise walk.refusal(eqn, 'both operands depend on the input')
  shape = walk.program.avals[eqn.outputs[0]].shape
  a, b = (walk.broadcastable(arg, eqn) for arg in (args * 2)[:2])
  a, b = _narrowed(walk, a, b), _narrowed(walk, b, a)
  made = np.broadcast_shapes(*(walk.tensors(x).shape for x in (a, b)))
  a = a if made == shape else walk.stored(a, eqn)  # both are broadcast
  return Pending(op, (a.index, b.index), shape, {})


def select(walk, eqn, args):
  """A choice that is the same everywhere, or a mask: a sum with a constant that is 0 or pushes out of the range."""
  if isinstance(args[0], Stored | Pending):
    raise walk.refusal(eqn, 'it chooses by values of the input')
  chosen, cases = np.asarray(args[0]).astype(int), args[1:]
  if (chosen == chosen.flat[0]).all():
    return cases[chosen.flat[0]]
  at = [i for i, case in enumerate(cases) if isinstance(case, Stored | Pending)]
  value = walk.stored(cases[at[0]], eqn)
  source, top = walk.tensors(value), 2 ** (walk.bits - 1)
  lowest = (-top - source.zero_point) * source.scale
  if len(at) != 1 or np.max(np.asarray(cases[1 - at[0]])) > lowest:
    raise walk.refusal(eqn, f'wanted a mask that puts in a constant of at most {lowest:.4g}, the lowest value of '
                            f'{source.name!r}')
  scale = float(np.float32((2 * top - 1) * source.scale / (top - 1)))
  codes = np.where(np.broadcast_to(chosen, value.shape) == at[0], 0, 1 - top).astype(f'int{walk.bits}')
  mask = walk.append(Node('constant', (), Tensor(walk.unused(f'{source.name}/masked_out'), codes.shape, scale, 0,
                                                 walk.bits), '', {}, codes))
  output = source._replace(name=walk.unused(f'{source.name}/mask'), shape=value.shape)
  return walk.append(Node('add', (value.index, _narrowed(walk, mask, value).index), output, '', {}))


def _narrowed(walk, x, other):
  """A constant without the axes along which it only repeats itself and the other operand does not."""
  made, wide = walk.maker(x), walk.tensors(other).shape
  if made is None or made.op != 'constant':
    return x
  codes = made.codes
  for axis in range(codes.ndim):
    first = np.take(codes, [0], axis)
    codes = first if wide[axis] == codes.shape[axis] and (codes == first).all() else codes
  if codes.shape == made.codes.shape:
    return x
  name = walk.unused(made.output.name)
  return walk.append(made._replace(output=made.output._replace(name=name, shape=codes.shape), codes=codes))


def clamp(walk, eqn, args):
  """max, min and clamp with scalars, and calls that do nothing else."""
  i = next(i for i, arg in enumerate(args) if isinstance(arg, Stored | Pending))
  if any(np.size(arg) != 1 for j, arg in enumerate(args) if j != i):
    raise walk.refusal(eqn, 'wanted scalar bounds')
  others = [np.float32(np.asarray(arg).flat[0]) if j != i else None for j, arg in enumerate(args)]
  with jax.ensure_compile_time_eval():  # what the ends become
    low, high = (float(_clamped(eqn, [end if arg is None else arg for arg in others])) for end in _ENDS)
  if isinstance(args[i], Pending):
    return kernels.clip(args[i], low, high)
  value = walk.stored(args[i], eqn)
  if not clamps_alone((low, high), walk.readers.get(eqn.outputs[0], [])):
    return kernels.clip(linear.identity(walk, eqn, value, np.ones(1)), low, high)
  name = kernels.activation(low, high, walk.tensors(value))
  return _activated(walk, value, name) if name else value


def _clamped(eqn, args):
  """A clamp of numbers, of whatever shape it was traced for."""
  if eqn.body is None:
    return np.asarray(execute(eqn, args)[0])
  values = dict(zip(eqn.body.inputs, args, strict=True))
  for e in eqn.body.eqns:
    read = [np.float32(v.value) if isinstance(v, Const) else values[v] for v in e.inputs]
    values[e.outputs[0]] = _clamped(e, read) if e.name in CLAMPS else read[0]
  return values[eqn.body.outputs[0]]


def _activated(walk, value, name):
  """A RELU of its own."""
  out = walk.emit('clamp', value, value.shape, {})
  walk.nodes[-1] = walk.nodes[-1]._replace(activation=name)
  return out


def function(walk, eqn, args):
  """A function of one activation that the target has a kernel for; it rounds to a range of its own."""
  x = walk.stored(args[0], eqn)
  shape = walk.program.avals[eqn.outputs[0]].shape
  if eqn.name == 'argmax':
    output = Tensor(walk.unused(f'{walk.tensors(x).name}/argmax'), shape, 1., 0, 32)
    return walk.append(Node('argmax', (x.index,), output, '', {'axis': len(x.shape) - 1}))
  source = walk.tensors(x)
  if eqn.name in POSITIVE and source.zero_point != -128 and walk.bits == 8:
    raise walk.refusal(eqn, f'{source.name!r}, which it reads, has zero point {source.zero_point}, wanted -128: it has '
                            'no value below 0')
  return Pending(eqn.name, (x.index,), shape, dict(eqn.params))


def same(walk, eqn, args):
  """What changes nothing for integers."""
  if eqn.name == 'convert_element_type' and not is_float(eqn.params['new_dtype']):
    raise walk.refusal(eqn, f'to {np.dtype(eqn.params["new_dtype"])}: wanted floating point')
  return list(args)


HANDLERS = {
    'conv_general_dilated': linear.convolution, 'dot_general': linear.dot,
    'reduce_sum': reductions.mean, 'reduce_max': reductions.largest,
    **dict.fromkeys(('add', 'add_any', 'sub', 'mul', 'div', 'neg'), affine),
    **dict.fromkeys(('square', 'integer_pow'), _pair), **dict.fromkeys(('max', 'min', 'clamp'), clamp),
    **dict.fromkeys(FUNCTIONS, function), **dict.fromkeys(('resize_nearest', 'resize_bilinear'), reductions.resize),
    **dict.fromkeys(('reduce_window_max', 'reduce_window_sum'), reductions.pool),
    **dict.fromkeys(('reshape', 'squeeze', 'expand_dims', 'broadcast_in_dim'), layouts.reshape),
    'select_n': select, 'transpose': layouts.transpose,
    'pad': layouts.pad, 'slice': layouts.cut, 'split': layouts.split,
    'concatenate': layouts.concatenate,
    **dict.fromkeys(('convert_element_type', 'copy', 'copy_p', 'reduce_precision', 'optimization_barrier', 'name',
                     'stop_gradient'), same)}
