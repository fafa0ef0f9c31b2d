"""How each primitive of a traced function becomes a kernel: one handler `(walk, eqn, args) -> value` each."""
import math

import jax
import jax.numpy as jnp
import numpy as np

from effjax.errors import EffjaxError
from effjax.export import kernels, layouts, linear
from effjax.export.kernels import Kernel, Pending, Stored
from effjax.export.network import Node, Tensor
from effjax.graph.places import CLAMPS, FUNCTIONS, POSITIVE, clamps_alone
from effjax.graph.trace import Const, execute
from effjax.quantize.activations import FIXED

_ENDS = np.float32(-math.inf), np.float32(math.inf)
_PRODUCTS = frozenset({'mul', 'matmul'})
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


def store(walk, pending: Pending, tensor: Tensor, eqn) -> Stored:
  """The kernel with its rounding to the tensor's range; layouts that its value passed through come after it."""
  settings = dict(pending.settings)
  shape, order, cut = (settings.pop(name, None) for name in ('result', 'order', 'cut'))
  made = tuple(settings.pop('made', pending.shape))
  pending, sources = _rescaled(walk, pending._replace(settings=settings), tensor, eqn)
  name = kernels.activation(pending.low, pending.high, tensor)
  if name is None:
    raise walk.refusal(eqn, f'{tensor.name!r} is clipped to [{pending.low:.6g}, {pending.high:.6g}]: wanted '
                            'relu, relu6, [-1, 1] or what its range saturates to')
  out = walk.append(kernels.node(pending, tensor._replace(shape=made), name, sources[0]))
  _check_ratios(walk, eqn, walk.nodes[-1], sources)
  _check_fixed(walk, eqn, walk.nodes[-1], sources)
  out = layouts.sliced(walk, out, *cut, (1,) * len(made)) if cut else out
  if order:
    return layouts.transposed(walk, out, tuple(np.argsort(order)))
  return layouts.reshaped(walk, out, shape) if shape else out


def _rescaled(walk, pending, tensor, eqn):
  """A sum is a mean that nothing divided; what is joined is brought to one range; no other factor has a kernel."""
  if pending.op == 'mean' and np.allclose(pending.gain, pending.settings['count'], rtol=1e-6):
    pending = pending._replace(op='sum', gain=1.)
  settings = {name: value for name, value in pending.settings.items() if name != 'count'}
  if not pending.linear and abs(float(np.max(pending.gain)) - 1) > 1e-6:
    raise walk.refusal(eqn, f'{tensor.name!r} is {np.max(pending.gain):.6g} times a {pending.op}: wanted 1 times')
  if pending.op == 'concat':
    pending = pending._replace(inputs=tuple(_joined(walk, i, tensor) for i in pending.inputs))
  return pending._replace(settings=settings), [walk.tensors(Stored(i, ())) for i in pending.inputs]


def _joined(walk, index, tensor):
  """A part of a concatenation in the range of the result."""
  source = walk.tensors(Stored(index, ()))
  if (source.scale, source.zero_point) == (tensor.scale, tensor.zero_point):
    return index
  output = tensor._replace(name=walk.unused(f'{source.name}/quantize'), shape=source.shape)
  return walk.append(Node('quantize', (index,), output, '', {})).index


def _check_ratios(walk, eqn, node, sources):
  """The ratios of scales that fixed-point kernels can hold."""
  if node.op not in _PRODUCTS | {'add', 'sub', 'conv', 'depthwise', 'dense', 'transpose_conv', 'mean', 'sum'}:
    return
  scales = node.scales if node.scales is not None else np.float32([1.])
  product = np.prod([s.scale for s in sources]) if node.op in _PRODUCTS else max(s.scale for s in sources)
  ratio = product * scales / node.output.scale
  smallest = 2. ** (-10 if node.op in ('add', 'sub') else -31)
  if not (ratio.min() >= smallest and ratio.max() < 2. ** 8):
    raise walk.refusal(eqn, f'{node.output.name!r}: input scale * weight scale / output scale is between '
                            f'{ratio.min():.3g} and {ratio.max():.3g}, wanted {smallest:.3g} to 256: widen its range')


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
  if np.all(factor == 1) and not np.any(term):
    return value
  if isinstance(value, Stored):
    value = walk.stored(value, eqn)
    if np.size(np.unique(factor)) == 1 and np.min(factor) > 0 and not np.any(term):
      return _relabelled(walk, value, float(np.min(factor)))
    if not np.any(factor != 1) and _is_epsilon(walk, eqn, value, term):
      return value
    value = linear.identity(walk, eqn, value, (factor if np.any(factor != 1) else term))
  if value.op == 'pool_sum':
    return _averaged(walk, eqn, value, factor)
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
  """True for what is added before a root and is less than half a step: the kernel of the root takes 0 as it is."""
  readers = [other for other in walk.program.eqns if eqn.outputs[0] in other.inputs]
  root = bool(readers) and all(other.name in POSITIVE for other in readers)
  return root and 0 <= np.max(term) < walk.tensors(value).scale / 2


def _pair(walk, eqn, args):
  op = {'add_any': 'add', 'square': 'mul', 'integer_pow': 'mul'}.get(eqn.name, eqn.name)
  if op not in ('add', 'sub', 'mul') or eqn.params.get('y', 2) != 2:
    raise walk.refusal(eqn, 'both operands depend on the input')
  a, b = (walk.broadcastable(arg, eqn) for arg in (args * 2)[:2])
  a, b = (_narrowed(walk, x) for x in (a, b))
  return Pending(op, (a.index, b.index), walk.program.avals[eqn.outputs[0]].shape, {})


def _narrowed(walk, x):
  """A constant without the axes along which it only repeats itself."""
  made = walk.maker(x)
  if made is None or made.op != 'constant':
    return x
  codes = made.codes
  for axis in range(codes.ndim):
    first = np.take(codes, [0], axis)
    codes = first if (codes == first).all() else codes
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


def _averaged(walk, eqn, value, factor):
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


def _check_fixed(walk, eqn, node, sources):
  """Ranges that kernels of functions insist on."""
  wanted, output = FIXED[walk.bits].get(node.op), node.output
  if wanted and (output.scale, output.zero_point) != (float(np.float32(wanted[0])), wanted[1]):
    raise walk.refusal(eqn, f'{output.name!r} has scale {output.scale:.6g} and zero point {output.zero_point}, its '
                            f'kernel wants {wanted[0]:.6g} and {wanted[1]}: quantize.quantizers gives that')
  if node.op == 'hard_swish' and sources[0].scale / 128 >= output.scale:
    raise walk.refusal(eqn, f'{output.name!r}: input scale / 128 is {sources[0].scale / 128:.3g}, wanted less than its '
                            f'scale {output.scale:.3g}: narrow the input, or widen its range')


def resize(walk, eqn, args):
  """RESIZE_BILINEAR, RESIZE_NEAREST_NEIGHBOR."""
  x = walk.stored(args[0], eqn)
  return walk.emit(eqn.name, x, walk.program.avals[eqn.outputs[0]].shape, dict(eqn.params))


def same(walk, eqn, args):
  """What changes nothing for integers."""
  if eqn.name == 'convert_element_type' and not is_float(eqn.params['new_dtype']):
    raise walk.refusal(eqn, f'to {np.dtype(eqn.params["new_dtype"])}: wanted floating point')
  return list(args)


HANDLERS = {
    'conv_general_dilated': linear.convolution, 'dot_general': linear.dot, 'reduce_sum': mean, 'reduce_max': largest,
    **dict.fromkeys(('add', 'add_any', 'sub', 'mul', 'div', 'neg'), affine),
    **dict.fromkeys(('square', 'integer_pow'), _pair), **dict.fromkeys(('max', 'min', 'clamp'), clamp),
    **dict.fromkeys(FUNCTIONS, function), **dict.fromkeys(('resize_nearest', 'resize_bilinear'), resize),
    **dict.fromkeys(('reduce_window_max', 'reduce_window_sum'), pool),
    **dict.fromkeys(('reshape', 'squeeze', 'expand_dims', 'broadcast_in_dim'), layouts.reshape),
    'transpose': layouts.transpose, 'pad': layouts.pad, 'slice': layouts.cut, 'split': layouts.split,
    'concatenate': layouts.concatenate,
    **dict.fromkeys(('convert_element_type', 'copy', 'copy_p', 'reduce_precision', 'optimization_barrier', 'name',
                     'stop_gradient'), same)}
