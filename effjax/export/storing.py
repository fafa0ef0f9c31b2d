"""A pending kernel becomes a node: its rounding to a range, and what kernels ask of ranges."""
import numpy as np

from effjax.export import kernels, layouts
from effjax.export.kernels import Pending, Stored
from effjax.export.network import WEIGHTED, Node, Tensor
from effjax.quantize.activations import FIXED

_PRODUCTS = frozenset({'mul', 'matmul'})


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
  if node.op not in _PRODUCTS | WEIGHTED | {'add', 'sub', 'mean', 'sum'}:
    return
  scales = node.scales if node.scales is not None else np.float32([1.])
  product = np.prod([s.scale for s in sources]) if node.op in _PRODUCTS else max(s.scale for s in sources)
  ratio = product * scales / node.output.scale
  smallest = 2. ** (-10 if node.op in ('add', 'sub') else -31)
  if not (ratio.min() >= smallest and ratio.max() < 2. ** 8):
    raise walk.refusal(eqn, f'{node.output.name!r}: input scale * weight scale / output scale is between '
                            f'{ratio.min():.3g} and {ratio.max():.3g}, wanted {smallest:.3g} to 256: widen its range')


def _check_fixed(walk, eqn, node, sources):
  """Ranges that kernels of functions insist on."""
  wanted, output = FIXED[walk.bits].get(node.op), node.output
  if wanted and (output.scale, output.zero_point) != (float(np.float32(wanted[0])), wanted[1]):
    raise walk.refusal(eqn, f'{output.name!r} has scale {output.scale:.6g} and zero point {output.zero_point}, its '
                            f'kernel wants {wanted[0]:.6g} and {wanted[1]}: quantize.quantizers gives that')
  if node.op == 'hard_swish' and sources[0].scale / 128 >= output.scale:
    raise walk.refusal(eqn, f'{output.name!r}: input scale / 128 is {sources[0].scale / 128:.3g}, wanted less than its '
                            f'scale {output.scale:.3g}: narrow the input, or widen its range')
