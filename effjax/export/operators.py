"""How each primitive of a traced function becomes a kernel: one handler `(walk, eqn, args) -> value` each."""
import math

import jax
import jax.numpy as jnp
import numpy as np

from effjax.export import kernels, layouts, linear
from effjax.export.kernels import Kernel, Pending, Stored
from effjax.export.network import Tensor
from effjax.graph.trace import execute

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


def store(walk, pending: Pending, tensor: Tensor, eqn) -> Stored:
  """The kernel with its rounding to the tensor's range; layouts that its value passed through come after it."""
  shape, order = pending.settings.get('result'), pending.settings.get('order')
  settings = {name: value for name, value in pending.settings.items() if name not in ('result', 'order')}
  made = tuple(settings.pop('made', pending.shape))
  if not pending.linear and abs(float(np.max(pending.gain)) - 1) > 1e-6:
    raise walk.refusal(eqn, f'{tensor.name!r} is {np.max(pending.gain):.6g} times a {pending.op}: wanted 1 times')
  name = kernels.activation(pending.low, pending.high, tensor)
  if name is None:
    raise walk.refusal(eqn, f'{tensor.name!r} is clipped to [{pending.low:.6g}, {pending.high:.6g}]: wanted '
                            'relu, relu6, [-1, 1] or what its range saturates to')
  sources = [walk.tensors(Stored(i, ())) for i in pending.inputs]
  pending = pending._replace(settings=settings)
  out = walk.append(kernels.node(pending, tensor._replace(shape=made), name, sources[0].scale))
  _check_ratios(walk, eqn, walk.nodes[-1], sources)
  if order:
    return layouts.transposed(walk, out, tuple(np.argsort(order)))
  return walk.emit('reshape', out, shape, {'shape': tuple(shape[1:])}) if shape and shape != made else out


def _check_ratios(walk, eqn, node, sources):
  """The ratios of scales that fixed-point kernels can hold."""
  scales = node.scales if node.scales is not None else np.float32([1.])
  product = np.prod([s.scale for s in sources]) if node.op == 'mul' else max(s.scale for s in sources)
  ratio = product * scales / node.output.scale
  smallest = 2. ** (-10 if node.op == 'add' else -31)
  if not (ratio.min() >= smallest and ratio.max() < 2. ** 8):
    raise walk.refusal(eqn, f'{node.output.name!r}: input scale * weight scale / output scale is between '
                            f'{ratio.min():.3g} and {ratio.max():.3g}, wanted {smallest:.3g} to 256: widen its range')
  if node.op == 'concat' and len({(s.scale, s.zero_point) for s in (*sources, node.output)}) > 1:
    raise walk.refusal(eqn, f'{node.output.name!r} joins tensors of different ranges '
                            f'{sorted({s.name for s in sources})}: give them one range')


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
    made = walk.tensors(value)
    raise walk.refusal(eqn, f'{made.name!r} is integers already: a constant folds only into a convolution or dot '
                            'product right before it')
  if value.op == 'pool_sum':
    return _averaged(walk, eqn, value, factor)
  for step, operand, neutral in ((kernels.scaled, factor, 1), (kernels.shifted, term, 0)):
    if np.any(operand != neutral):
      value = step(value, operand)
      if isinstance(value, str):
        raise walk.refusal(eqn, value)
  return value


def _pair(walk, eqn, args):
  op = {'add': 'add', 'add_any': 'add', 'mul': 'mul'}.get(eqn.name)
  if op is None:
    raise walk.refusal(eqn, 'both operands depend on the input')
  a, b = (walk.stored(arg, eqn) for arg in args)
  return Pending(op, (a.index, b.index), np.broadcast_shapes(a.shape, b.shape), {})


def clamp(walk, eqn, args):
  """max, min and clamp with scalars."""
  value = next(arg for arg in args if isinstance(arg, Stored | Pending))
  bounds = [float(np.asarray(arg)) for arg in args if arg is not value and np.size(arg) == 1]
  if len(bounds) != len(args) - 1:
    raise walk.refusal(eqn, 'wanted scalar bounds')
  low = bounds[0] if eqn.name in ('max', 'clamp') else -math.inf
  high = bounds[-1] if eqn.name in ('min', 'clamp') else math.inf
  if isinstance(value, Pending):
    return kernels.clip(value, low, high)
  made = walk.tensors(value)
  name = kernels.activation(low, high, made)
  if name is None:
    raise walk.refusal(eqn, f'{made.name!r} is clipped to [{low:.6g}, {high:.6g}]: wanted relu, relu6 or [-1, 1]')
  return _activated(walk, value, name) if name else value


def _activated(walk, value, name):
  """A RELU of its own, or one that the kernel before a pool or reshape does, as the converter would have it."""
  first = len(walk.inputs)
  chain = [walk.nodes[value.index - first]] if value.index >= first else []
  while chain and chain[-1].op in ('max_pool', 'reshape', 'transpose', 'pad') and chain[-1].inputs[0] >= first:
    chain.append(walk.nodes[chain[-1].inputs[0] - first])
  alone = len(chain) == 1 and chain[0].op != 'average_pool'
  if not chain or alone or chain[-1].activation or chain[-1].op == 'concat':
    out = walk.emit('clamp', value, value.shape, {})
    walk.nodes[-1] = walk.nodes[-1]._replace(activation=name)
    return out
  rename = lambda tensor: tensor._replace(name=walk.unused(f'{tensor.name}/{name}'))
  renamed = lambda node: node._replace(output=rename(node.output))
  out = walk.append(renamed(chain[-1])._replace(activation=name))
  for node in reversed(chain[:-1]):
    out = walk.append(renamed(node)._replace(inputs=(out.index,)))
  return out


def mean(walk, eqn, args):
  """MEAN, once the sum is divided by the number of its terms."""
  x, axes = walk.stored(args[0], eqn), tuple(eqn.params['axes'])
  count = math.prod(x.shape[i] for i in axes)
  shape = walk.program.avals[eqn.outputs[0]].shape
  if 0 in axes:
    raise walk.refusal(eqn, 'it sums over the batch')
  return Pending('mean', (x.index,), shape, {'axes': axes, 'keep': False}, gain=np.float64(count))


def pool(walk, eqn, args):
  """MAX_POOL_2D, or the sum of an AVERAGE_POOL_2D, which needs its division."""
  x, p = walk.stored(args[0], eqn), eqn.params
  window, strides, padding = (tuple(p[name]) for name in ('window_dimensions', 'window_strides', 'padding'))
  flat = len(x.shape) == 4 and window[0] == window[3] == strides[0] == strides[3] == 1
  plain = all(d == 1 for d in (*p['base_dilation'], *p['window_dilation']))
  padding = tuple(map(tuple, padding))
  same = layouts.same_padding(x.shape[1:3], window[1:3], strides[1:3])
  if not (flat and plain and padding[1:3] in (same, ((0, 0), (0, 0)))):
    raise walk.refusal(eqn, f'wanted a 2-D NHWC window with SAME or VALID padding, got {window} with {padding}')
  settings = {'window': window[1:3], 'strides': strides[1:3], 'padding': padding[1:3]}
  shape = walk.program.avals[eqn.outputs[0]].shape
  if eqn.name == 'reduce_window_max':
    return walk.emit('max_pool', x, shape, settings)
  with jax.ensure_compile_time_eval():
    counts = np.asarray(execute(eqn, [np.ones(x.shape, np.float32)])[0], np.float64)
  return Pending('pool_sum', (x.index,), shape, settings, gain=counts)


def _averaged(walk, eqn, value, factor):
  if not np.allclose(value.gain * factor, 1, rtol=1e-6):
    raise walk.refusal(eqn, 'an average that counts padding has no kernel: use VALID or count_include_pad=False')
  source = Stored(value.inputs[0], walk.tensors(Stored(value.inputs[0], ())).shape)
  return walk.emit('average_pool', source, value.shape, value.settings)


def same(walk, eqn, args):
  """What changes nothing for integers."""
  if eqn.name == 'convert_element_type' and not is_float(eqn.params['new_dtype']):
    raise walk.refusal(eqn, f'to {np.dtype(eqn.params["new_dtype"])}: wanted floating point')
  return list(args)


HANDLERS = {
    'conv_general_dilated': linear.convolution, 'dot_general': linear.dot, 'reduce_sum': mean,
    **dict.fromkeys(('add', 'add_any', 'sub', 'mul', 'div', 'neg'), affine),
    **dict.fromkeys(('max', 'min', 'clamp'), clamp),
    **dict.fromkeys(('reduce_window_max', 'reduce_window_sum'), pool),
    **dict.fromkeys(('reshape', 'squeeze', 'expand_dims', 'broadcast_in_dim'), layouts.reshape),
    'transpose': layouts.transpose, 'pad': layouts.pad, 'slice': layouts.cut, 'split': layouts.split,
    'concatenate': layouts.concatenate,
    **dict.fromkeys(('convert_element_type', 'copy', 'copy_p', 'reduce_precision', 'optimization_barrier', 'name'),
                    same)}
