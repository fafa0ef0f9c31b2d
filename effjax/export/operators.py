"""How each primitive of a traced function becomes a kernel: one handler `(walk, eqn, args) -> value` each."""
import math

import jax
import numpy as np

from effjax.export import kernels
from effjax.export.kernels import Kernel, Pending, Stored
from effjax.export.network import Tensor
from effjax.graph.trace import Const, execute

_LAYOUT = frozenset({'reshape', 'transpose', 'squeeze', 'expand_dims', 'broadcast_in_dim', 'slice', 'copy', 'copy_p'})
_NHWC = (0, 3, 1, 2)


def concrete(eqn, args):
  """An equation of constants, computed; a kernel with a fact keeps its codes under a change of layout."""
  held = [arg for arg in args if isinstance(arg, Kernel)]
  plain = lambda field: [getattr(arg, field) if isinstance(arg, Kernel) else arg for arg in args]
  with jax.ensure_compile_time_eval():
    if len(held) == 1 and (eqn.name in _LAYOUT or _identity(eqn, args)):
      parts = {field: np.asarray(execute(eqn, plain(field))[0]) for field in ('value', 'codes', 'scale')}
      return [held[0]._replace(**parts)]
    return list(execute(eqn, plain('value')))


def _identity(eqn, args):
  """True for a conversion to the same type and for a multiplication by 1."""
  if eqn.name == 'convert_element_type':
    return eqn.params['new_dtype'] == np.float32
  others = [arg for arg in args if not isinstance(arg, Kernel)]
  return eqn.name == 'mul' and len(others) == 1 and bool(np.all(np.asarray(others[0]) == 1))


def store(walk, pending: Pending, tensor: Tensor, eqn) -> Stored:
  """The kernel with its rounding to the tensor's range; layouts that its value passed through come after it."""
  shape, order = pending.settings.get('result'), pending.settings.get('order')
  settings = {name: value for name, value in pending.settings.items() if name not in ('result', 'order')}
  made = tuple(settings.pop('made', pending.shape))
  if not pending.linear and abs(float(np.max(pending.gain)) - 1) > 1e-6:
    raise walk.refusal(eqn, f'{tensor.name!r} is {float(np.max(pending.gain)):.6g} times a {pending.op}: wanted 1 times')
  name = kernels.activation(pending.low, pending.high, tensor)
  if name is None:
    raise walk.refusal(eqn, f'{tensor.name!r} is clipped to [{pending.low:.6g}, {pending.high:.6g}]: wanted '
                            'relu, relu6, [-1, 1] or what its range saturates to')
  sources = [walk.tensors(Stored(i, ())) for i in pending.inputs]
  pending = pending._replace(settings=settings)
  out = walk.append(kernels.node(pending, tensor._replace(shape=made), name, sources[0].scale))
  _check_ratios(walk, eqn, walk.nodes[-1], sources)
  if order:
    return transposed(walk, out, tuple(np.argsort(order)))
  return walk.emit('reshape', out, shape, {'shape': tuple(shape[1:])}) if shape and shape != made else out


def _check_ratios(walk, eqn, node, sources):
  """The ratios of scales that fixed-point kernels can hold."""
  scales = node.scales if node.scales is not None else np.float32([1.])
  product = np.prod([s.scale for s in sources]) if node.op == 'mul' else max(s.scale for s in sources)
  ratio = product * scales / node.output.scale
  smallest = 2. ** (-10 if node.op == 'add' else -31)
  if not (ratio.min() >= smallest and ratio.max() < 2. ** 8):
    raise walk.refusal(eqn, f'{node.output.name!r}: input scale * weight scale / output scale is between {ratio.min():.3g} '
                            f'and {ratio.max():.3g}, wanted {smallest:.3g} to 256: widen its range')
  if node.op == 'concat' and len({(s.scale, s.zero_point) for s in (*sources, node.output)}) > 1:
    raise walk.refusal(eqn, f'{node.output.name!r} joins tensors of different ranges '
                            f'{sorted({s.name for s in sources})}: give them one range')


def convolution(walk, eqn, args):
  """CONV_2D or DEPTHWISE_CONV_2D in NHWC; other layouts get a transpose before and after."""
  x, w = walk.stored(args[0], eqn), _weight(walk, eqn, args[1])
  p, numbers = eqn.params, eqn.params['dimension_numbers']
  if len(x.shape) != 4 or any(d != 1 for d in p['lhs_dilation']) or p['batch_group_count'] != 1:
    raise walk.refusal(eqn, 'wanted a 2-D convolution, neither transposed nor grouped over the batch')
  shape = walk.program.avals[eqn.outputs[0]].shape
  order = None if numbers.out_spec == _NHWC else (0, *numbers.out_spec[2:], numbers.out_spec[1])
  if numbers.lhs_spec != _NHWC:
    x = transposed(walk, x, (0, *numbers.lhs_spec[2:], numbers.lhs_spec[1]))
  hwio = (*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0])
  codes, scale = w.codes.transpose(hwio), w.scale.transpose(hwio)
  x, padding = _padded(walk, x, codes.shape, p)
  groups = p['feature_group_count']
  op = 'depthwise' if groups == x.shape[3] else 'conv'
  settings = {'strides': p['window_strides'], 'padding': padding, 'dilation': p['rhs_dilation'], 'groups': groups,
              'order': order, 'made': tuple(shape[i] for i in order) if order else shape}
  return Pending(op, (x.index,), shape, settings, w, codes, _per_output(walk, eqn, w, scale), 0.)


def _padded(walk, x, kernel_shape, p):
  """The input and the padding of the convolution: what is neither SAME nor VALID becomes a pad of its own."""
  sizes = [(k - 1) * d + 1 for k, d in zip(kernel_shape[:2], p['rhs_dilation'], strict=True)]
  padding = tuple(map(tuple, p['padding']))
  if padding in (_same(x.shape[1:3], sizes, p['window_strides']), ((0, 0), (0, 0))):
    return x, padding
  return pad_by(walk, x, ((0, 0), *padding, (0, 0))), ((0, 0), (0, 0))


def _same(shape, sizes, strides):
  total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(shape, sizes, strides, strict=True)]
  return tuple((t // 2, t - t // 2) for t in total)


def dot(walk, eqn, args):
  """FULLY_CONNECTED on a matrix, a 1x1 convolution on an image."""
  x, w = walk.stored(args[0], eqn), _weight(walk, eqn, args[1])
  ((left,), (right,)), batch = eqn.params['dimension_numbers']
  if left != len(x.shape) - 1 or w.codes.ndim != 2 or any(batch) or len(x.shape) not in (2, 4):
    raise walk.refusal(eqn, f'wanted [n, c] or [n, h, w, c] times a matrix, got {x.shape} and {w.codes.shape}')
  codes, scale = (w.codes, w.scale) if right == 0 else (w.codes.T, w.scale.T)
  gain = _per_output(walk, eqn, w, scale)
  shape = walk.program.avals[eqn.outputs[0]].shape
  if len(x.shape) == 2:
    return Pending('dense', (x.index,), shape, {}, w, codes, gain, 0.)
  settings = {'strides': (1, 1), 'padding': ((0, 0), (0, 0)), 'dilation': (1, 1), 'groups': 1}
  return Pending('conv', (x.index,), shape, settings, w, codes[None, None], gain, 0.)


def _weight(walk, eqn, value):
  if isinstance(value, Kernel):
    return value
  if isinstance(value, Stored | Pending):
    raise walk.refusal(eqn, 'both operands depend on the input')
  path = next((walk.weights[v] for v in eqn.inputs if not isinstance(v, Const) and v in walk.weights), 'constant')
  raise walk.refusal(eqn, f'its kernel {path!r} has no fact (bits and scale): quantize it')


def _per_output(walk, eqn, w, scale):
  flat = scale.reshape(-1, scale.shape[-1]).astype(np.float64)
  if not (flat == flat[0]).all():
    raise walk.refusal(eqn, f'the scale of {w.path!r} varies within an output channel: wanted one per output channel')
  return flat[0]


def affine(walk, eqn, args):
  """Sums and products: of two tensors a kernel, with constants folded into what came before."""
  varying = [i for i, arg in enumerate(args) if isinstance(arg, Stored | Pending)]
  if len(varying) == 2:
    return _pair(walk, eqn, args)
  value = args[varying[0]]
  other = np.asarray(next((a.value if isinstance(a, Kernel) else a for i, a in enumerate(args) if i not in varying), -1.),
                     np.float64)
  if eqn.name == 'div' and (varying[0] == 1 or not other.all()):
    raise walk.refusal(eqn, 'wanted a divisor that is a constant other than 0')
  if eqn.name in ('mul', 'div', 'neg'):
    return _folded(walk, eqn, value, 1 / other if eqn.name == 'div' else other, np.float64(0))
  if eqn.name == 'sub' and varying[0] == 1:
    return _folded(walk, eqn, value, np.float64(-1), other)
  return _folded(walk, eqn, value, np.float64(1), -other if eqn.name == 'sub' else other)


def _folded(walk, eqn, value, factor, term):
  if not np.any(factor):
    return np.zeros(value.shape, np.float32) + np.asarray(term, np.float32)
  if np.all(factor == 1) and not np.any(term):
    return value
  if isinstance(value, Stored):
    made = walk.tensors(value)
    raise walk.refusal(eqn, f'{made.name!r} is integers already: a constant folds only into a convolution or dot product '
                            'right before it')
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
  if not name:
    return value
  return _activated(walk, value, name)


def _activated(walk, value, name):
  """A RELU of its own, or one that the kernel before a pool or reshape does, as the converter would have it."""
  first = len(walk.inputs)
  chain = [walk.nodes[value.index - first]] if value.index >= first else []
  while chain and chain[-1].op in ('max_pool', 'reshape', 'transpose', 'pad') and chain[-1].inputs[0] >= first:
    chain.append(walk.nodes[chain[-1].inputs[0] - first])
  if not chain or chain[-1].activation or (len(chain) == 1 and chain[0].op != 'average_pool') or chain[-1].op == 'concat':
    out = walk.emit('clamp', value, value.shape, {})
    walk.nodes[-1] = walk.nodes[-1]._replace(activation=name)
    return out
  renamed = lambda node: node._replace(output=node.output._replace(name=f'{node.output.name}/{name}'))
  out = walk.append(renamed(chain[-1])._replace(activation=name))
  for node in reversed(chain[:-1]):
    out = walk.append(renamed(node)._replace(inputs=(out.index,)))
  return out


def mean(walk, eqn, args):
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
  if not (flat and plain and padding[1:3] in (_same(x.shape[1:3], window[1:3], strides[1:3]), ((0, 0), (0, 0)))):
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


def reshape(walk, eqn, args):
  """reshape, squeeze, expand_dims, and broadcast_in_dim, which may also stretch a tensor for a product."""
  value, shape = args[0], walk.program.avals[eqn.outputs[0]].shape
  if isinstance(value, Pending):
    return _reshaped(walk, eqn, value, shape)
  value = walk.stored(value, eqn)
  same = math.prod(shape) == math.prod(value.shape)
  if not same or shape[:1] != (1,):
    if eqn.name == 'broadcast_in_dim' and eqn.params['broadcast_dimensions'] == tuple(range(len(shape))):
      return Stored(value.index, shape)
    raise walk.refusal(eqn, f'{value.shape} to {shape}: the batch must stay axis 0')
  return value if shape == value.shape else walk.emit('reshape', value, shape, {'shape': tuple(shape[1:])})


def _reshaped(walk, eqn, value, shape):
  if value.op != 'mean' or math.prod(shape) != math.prod(value.shape):
    raise walk.refusal(eqn, f'the result of {value.op} has no range before it')
  source = walk.tensors(Stored(value.inputs[0], ())).shape
  kept = tuple(1 if i in value.settings['axes'] else n for i, n in enumerate(source))
  keep = shape == kept
  return value._replace(shape=shape, settings={**value.settings, 'keep': keep, 'result': shape,
                                               'made': kept if keep else value.settings.get('made', value.shape)})


def transpose(walk, eqn, args):
  return transposed(walk, walk.stored(args[0], eqn), tuple(eqn.params['permutation']))


def transposed(walk, x, permutation):
  """TRANSPOSE; a transpose of a transpose back is what it came from."""
  shape = tuple(x.shape[i] for i in permutation)
  if permutation == tuple(range(len(permutation))):
    return x
  maker = walk.nodes[x.index - len(walk.inputs)] if x.index >= len(walk.inputs) else None
  if maker and maker.op == 'transpose' and tuple(maker.settings['permutation'][i] for i in permutation) == tuple(
      range(len(permutation))):
    return Stored(maker.inputs[0], shape)
  return walk.emit('transpose', x, shape, {'permutation': permutation})


def pad(walk, eqn, args):
  x, config = walk.stored(args[0], eqn), eqn.params['padding_config']
  if any(low < 0 or high < 0 or inner for low, high, inner in config) or np.any(np.asarray(args[1]) != 0):
    raise walk.refusal(eqn, 'wanted zeros around the image')
  return pad_by(walk, x, tuple((low, high) for low, high, _ in config))


def pad_by(walk, x, padding):
  shape = tuple(n + low + high for n, (low, high) in zip(x.shape, padding, strict=True))
  return walk.emit('pad', x, shape, {'padding': tuple(map(tuple, padding))})


def cut(walk, eqn, args):
  p = eqn.params
  x, strides = walk.stored(args[0], eqn), p['strides'] or (1,) * len(p['start_indices'])
  return _slice(walk, eqn, x, p['start_indices'], p['limit_indices'], strides)


def _slice(walk, eqn, x, start, limit, strides):
  if any(s != 1 for s in strides):
    raise walk.refusal(eqn, f'slice with strides {strides}: wanted 1')
  shape = tuple(b - a for a, b in zip(start, limit, strict=True))
  return x if shape == x.shape else walk.emit('slice', x, shape, {'start': tuple(start), 'limit': tuple(limit)})


def split(walk, eqn, args):
  x, axis, sizes = walk.stored(args[0], eqn), eqn.params['axis'], eqn.params['sizes']
  ends = np.cumsum((0, *sizes))
  cuts = [(int(a), int(b)) for a, b in zip(ends, ends[1:])]
  out = []
  for a, b in cuts:
    start = [a if j == axis else 0 for j in range(len(x.shape))]
    limit = [b if j == axis else n for j, n in enumerate(x.shape)]
    out.append(_slice(walk, eqn, x, start, limit, (1,)))
  return out


def concatenate(walk, eqn, args):
  parts = [walk.stored(arg, eqn) for arg in args]
  shape = walk.program.avals[eqn.outputs[0]].shape
  return Pending('concat', tuple(part.index for part in parts), shape, {'axis': eqn.params['dimension']})


def same(walk, eqn, args):
  return list(args)


HANDLERS = {
    'conv_general_dilated': convolution, 'dot_general': dot, 'reduce_sum': mean,
    **dict.fromkeys(('add', 'add_any', 'sub', 'mul', 'div', 'neg'), affine),
    **dict.fromkeys(('max', 'min', 'clamp'), clamp),
    **dict.fromkeys(('reduce_window_max', 'reduce_window_sum'), pool),
    **dict.fromkeys(('reshape', 'squeeze', 'expand_dims', 'broadcast_in_dim'), reshape),
    'transpose': transpose, 'pad': pad, 'slice': cut, 'split': split, 'concatenate': concatenate,
    **dict.fromkeys(('convert_element_type', 'copy', 'copy_p', 'reduce_precision', 'optimization_barrier', 'name'), same)}
