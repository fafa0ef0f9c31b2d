"""What the file computes, in JAX: int8 codes in, exact accumulators, the rounding of the device's kernels."""
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.export.network import ACTIVATIONS, Network, Node, Tensor, container

Images = Float[Array, 'n *s'] | Float[np.ndarray, 'n *s']

_EXACT = 2 ** 24  # integers below are exact in float32
_LANES = 8  # channels that the int4 depthwise kernel rounds together


def simulate(network: Network, x: Images | tuple[Images, ...], *, codes: bool = False, collect: bool = False):
  """The network's outputs for real inputs: those of LiteRT's default kernels on x86, code for code.

  Accumulators are exact integers. int8 kernels (XNNPACK) round `float32(acc) * float32(s_in s_w / s_out)` to the
  nearest, ties to even. int4 convolutions multiply by a 31-bit fixed-point number and round twice, ties up; in the last
  `channels mod 8` channels of an int4 depthwise convolution the second rounding is away from zero.

  Args:
    network: from `effjax.export.finalize`.
    x: a batch; a tuple of batches if the network has several inputs.
    codes: give int8 codes instead of real values.
    collect: also give every tensor by name, `(outputs, {name: tensor})`.

  Raises:
    EffjaxError: an input whose shape is not that of the network.
  """
  tensors = [quantized(*given) for given in zip(network.inputs, x if isinstance(x, tuple) else (x,), strict=True)]
  for node in network.nodes:
    sources = [network.tensors[i] for i in node.inputs]
    tensors.append(KERNELS[node.op](node, sources, [tensors[i] for i in node.inputs]))
  form = lambda t, q: q.astype(jnp.int8) if codes else (q - t.zero_point).astype(jnp.float32) * jnp.float32(t.scale)
  values = [form(*pair) for pair in zip(network.tensors, tensors, strict=True)]
  out = tuple(values[i] for i in network.outputs)
  out = out[0] if len(out) == 1 else out
  return (out, {t.name: value for t, value in zip(network.tensors, values, strict=True)}) if collect else out


def quantized(tensor: Tensor, x: Images) -> jax.Array:
  """The int32 codes of a real input."""
  x = jnp.asarray(x)
  if x.shape[1:] != tensor.shape[1:]:
    raise EffjaxError(f'simulate: input {tensor.name!r} has shape {x.shape}, wanted (n, {str(tensor.shape[1:])[1:]}')
  return _stored(tensor, jnp.round(x.astype(jnp.float32) / jnp.float32(tensor.scale)))


def _stored(tensor, rounded, activation=''):
  """Real codes without zero point, as stored: int32 within the range of int8 and of the activation."""
  bounds = np.clip(np.asarray(ACTIVATIONS[activation]) / tensor.scale, -1e6, 1e6)
  low, high = np.clip(np.rint(bounds) + tensor.zero_point, -128, 127).astype(np.int32)
  return jnp.clip(jnp.clip(rounded, -1e9, 1e9).astype(jnp.int32) + tensor.zero_point, low, high)


def _float_rounding(node, acc, multiplier):
  """XNNPACK: one multiplication in float32, ties to even."""
  rounded = jnp.round(acc.astype(jnp.float32) * jnp.asarray(multiplier, jnp.float32))
  return _stored(node.output, rounded, node.activation)


def _weighted(node, sources, x):
  """conv, depthwise and dense."""
  along = lambda value: np.reshape(value, (1,) * (x[0].ndim - 1) + (-1,))
  acc = accumulate(node, x[0] - sources[0].zero_point) + along(node.bias)
  scale, output = np.float32(sources[0].scale), np.float32(node.output.scale)
  even = node.codes.shape[0] % 2 == 0  # XNNPACK leaves int4 products of an odd number of inputs to the builtin kernel
  if container(node.bits) == 8 or (node.op == 'dense' and even):
    return _float_rounding(node, acc, along(scale * node.scales / output))
  multiplier, exponent = map(along, fixed_point(np.float64(scale) * node.scales / np.float64(output)))
  away = along(np.arange(multiplier.size) >= multiplier.size // _LANES * _LANES) & (node.op == 'depthwise')
  return _stored(node.output, _fixed_rounding(acc, multiplier, exponent, away).astype(jnp.float32), node.activation)


def fixed_point(ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """`ratio = multiplier 2^(exponent - 31)`, multiplier an integer in [2^30, 2^31).

  >>> fixed_point(np.array([.75]))
  (array([1610612736]), array([0], dtype=int32))
  """
  fraction, exponent = np.frexp(ratio.astype(np.float64))
  multiplier = np.floor(fraction * 2. ** 31 + .5).astype(np.int64)
  full = multiplier == 2 ** 31
  return np.where(full, 2 ** 30, multiplier), np.where(full, exponent + 1, exponent).astype(np.int32)


def _fixed_rounding(acc, multiplier, exponent, away):
  """gemmlowp: the high word of `2 acc multiplier`, rounded, then shifted right, ties up or (`away`) away from zero."""
  shift = np.maximum(-exponent, 0)
  high = _doubling_high_product(acc << np.maximum(exponent, 0), multiplier)
  half = jnp.asarray((1 << shift) >> 1, jnp.int32)
  return (high + half - (jnp.asarray(away & (shift > 0)) & (high < 0)).astype(jnp.int32)) >> shift


def _doubling_high_product(a, b):
  """`floor((a b + 2^30) / 2^31)` in 32-bit words, `b` a constant below 2^31."""
  a1, a0 = a >> 16, (a & 0xffff)
  b1, b0 = (jnp.asarray(part, jnp.int32) for part in (b >> 16, b & 0xffff))
  low = a0.astype(jnp.uint32) * b0.astype(jnp.uint32)
  left, right = a1 * b0, a0 * b1
  middle = (left & 0xffff) + (right & 0xffff) + (low >> 16).astype(jnp.int32)
  high = a1 * b1 + (left >> 16) + (right >> 16) + (middle >> 16)
  top = (middle & 0xffff) >> 14  # the two highest bits of the low word
  return 2 * high + ((top + 1) >> 1)


def accumulate(node: Node, x: jax.Array) -> jax.Array:
  """The exact int32 accumulators of a weighted kernel without its bias; `x` holds codes less the zero point."""
  return _linear(node, x, node.codes.astype(np.int32))


def _linear(node, x, codes):
  """In float32 while no partial sum can reach 2^24; larger codes in two parts."""
  if 255 * np.abs(codes).reshape(-1, codes.shape[-1]).sum(0).max() < _EXACT:
    return _float_linear(node, x.astype(jnp.float32), jnp.asarray(codes, jnp.float32)).astype(jnp.int32)
  factor = next((f for f in (16, 4, 2) if np.abs(codes).max() > f // 2), None)
  if factor is None:
    raise EffjaxError(f'simulate: {node.output.name!r} sums over {codes[..., 0].size} inputs, too many to be exact')
  high = np.rint(codes / factor).astype(np.int32)
  return factor * _linear(node, x, high) + _linear(node, x, codes - factor * high)


def _float_linear(node, x, w):
  highest = jax.lax.Precision.HIGHEST
  if node.op == 'dense':
    return jnp.dot(x, w, precision=highest)
  s = node.settings
  return jax.lax.conv_general_dilated(x, w, s['strides'], s['padding'], rhs_dilation=s['dilation'], precision=highest,
                                      dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=s['groups'])


def _add(node, sources, x):
  """XNNPACK: multipliers of 21 bits on one exponent, one shift, ties up."""
  ratios = [np.float32(np.float32(s.scale) / np.float32(node.output.scale)) for s in sources]
  shift = 21 - int(np.frexp(max(ratios))[1])
  a, b = ((q - s.zero_point) * int(np.rint(np.float64(r) * 2. ** shift)) for q, s, r in zip(x, sources, ratios))
  return _stored(node.output, ((a + b + (1 << (shift - 1))) >> shift).astype(jnp.float32), node.activation)


def _mul(node, sources, x):
  a, b = (q - s.zero_point for q, s in zip(x, sources))
  multiplier = np.float32(sources[0].scale) * np.float32(sources[1].scale) / np.float32(node.output.scale)
  return _float_rounding(node, a * b, multiplier)


def _mean(node, sources, x):
  axes, keep = node.settings['axes'], node.settings['keep']
  count = np.prod([sources[0].shape[i] for i in axes])
  acc = jnp.sum(x[0] - sources[0].zero_point, axes, keepdims=keep)
  return _float_rounding(node, acc, np.float32(sources[0].scale) / (np.float32(node.output.scale) * np.float32(count)))


def _window(node, x, start, function):
  window, strides = ((1, *node.settings[name], 1) for name in ('window', 'strides'))
  padding = ((0, 0), *node.settings['padding'], (0, 0))
  return jax.lax.reduce_window(x, np.int32(start), function, window, strides, padding)


def _average_pool(node, sources, x):
  """Averages of the stored integers, ties away from zero; what lies outside the image does not count."""
  total, count = (_window(node, q, 0, jax.lax.add) for q in (x[0], jnp.ones_like(x[0][:1, ..., :1])))
  return _clipped(node, jnp.sign(total) * ((2 * jnp.abs(total) + count) // (2 * count)))


def _max_pool(node, sources, x):
  return _clipped(node, _window(node, x[0], -128, jax.lax.max))


def _clipped(node, x):
  """Codes with the activation applied."""
  return _stored(node.output, (x - node.output.zero_point).astype(jnp.float32), node.activation)


def _slice(node, sources, x):
  return x[0][(slice(None), *map(slice, node.settings['start'][1:], node.settings['limit'][1:]))]


KERNELS = {
    'conv': _weighted, 'depthwise': _weighted, 'dense': _weighted, 'add': _add, 'mul': _mul, 'mean': _mean,
    'concat': lambda node, sources, x: jnp.concatenate(x, node.settings['axis']),
    'max_pool': _max_pool,
    'average_pool': _average_pool,
    'reshape': lambda node, sources, x: x[0].reshape(-1, *node.settings['shape']),
    'transpose': lambda node, sources, x: x[0].transpose(node.settings['permutation']),
    'slice': _slice,
    'pad': lambda node, sources, x: jnp.pad(x[0], node.settings['padding'], constant_values=sources[0].zero_point),
    'clamp': lambda node, sources, x: _clipped(node, x[0])}
