"""The integer network as a JAX function with fake quantization, in the form that converters read."""
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from effjax.export.network import Network, Node, container


def lower(network: Network) -> bytes:
  """StableHLO of the network for a batch of one: `quant.fake_quant` composites at weights and activations."""
  return stablehlo(function(network), *(jax.ShapeDtypeStruct(t.shape, jnp.float32) for t in network.inputs))


def stablehlo(fn: Callable, *args: jax.ShapeDtypeStruct) -> bytes:
  """The serialised (VHLO) StableHLO of `fn(*args)`."""
  return bytes(export.export(jax.jit(fn), platforms=['cpu'])(*args).mlir_module_serialized)


def function(network: Network) -> Callable:
  """The network as a float32 function of real inputs, each tensor followed by its fake quantization."""
  def run(*inputs):
    values = [_activation(t, x) for t, x in zip(network.inputs, inputs, strict=True)]
    for node in network.nodes:
      scales = [network.tensors[i].scale for i in node.inputs]
      value = OPERATORS[node.op](node, scales, [values[i] for i in node.inputs])
      values.append(_activation(node.output, ACTIVATE[node.activation](value)))
    return tuple(values[i] for i in network.outputs)
  return run


ACTIVATE = {'': lambda x: x, 'relu': jax.nn.relu, 'relu6': jax.nn.relu6,
            'relu_n1_to_1': lambda x: jnp.clip(x, jnp.float32(-1), jnp.float32(1))}


def fake_quant(x: jax.Array, scale: np.ndarray, zero_point: int, bits: int, *, narrow: bool, axis: int | None = None):
  """The composite; scale and zero point must be NumPy arrays, the zero point of integers (floats are read as 0)."""
  scale = np.atleast_1d(np.asarray(scale, np.float32))
  attributes = {'scale': scale, 'zero_point': np.full(scale.shape, zero_point, np.int64), 'dtype': f'i{bits}',
                'narrow_range': narrow} | ({} if axis is None else {'quantization_dimension': axis})
  return jax.lax.composite(lambda x, **_: x + jnp.float32(0), name='quant.fake_quant')(x, **attributes)


def _activation(tensor, x):
  return fake_quant(x, tensor.scale, tensor.zero_point, 8, narrow=False)


def _weighted(node: Node, scales, x):
  """conv, depthwise and dense: codes times scale, and a bias that is a multiple of the accumulator's unit."""
  w = jnp.asarray(node.codes.astype(np.float32) * node.scales)
  w = fake_quant(w, node.scales, 0, container(node), narrow=True, axis=w.ndim - 1)
  bias = (node.bias * (np.float64(scales[0]) * node.scales)).astype(np.float32)
  if node.op == 'dense':
    return x[0] @ w + bias[None]
  s = node.settings
  y = jax.lax.conv_general_dilated(x[0], w, s['strides'], s['padding'], rhs_dilation=s['dilation'],
                                   dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=s['groups'])
  return y + bias[None, None, None]


def _window(node, x, start, function):
  window, strides = ((1, *node.settings[name], 1) for name in ('window', 'strides'))
  padding = ((0, 0), *node.settings['padding'], (0, 0))
  return jax.lax.reduce_window(x, np.float32(start), function, window, strides, padding)


def _average_pool(node, scales, x):
  counts = _window(node, jnp.ones_like(x[0]), 0., jax.lax.add)
  return _window(node, x[0], 0., jax.lax.add) / counts


OPERATORS = {
    'conv': _weighted, 'depthwise': _weighted, 'dense': _weighted,
    'add': lambda node, scales, x: x[0] + x[1],
    'mul': lambda node, scales, x: x[0] * x[1],
    'mean': lambda node, scales, x: jnp.mean(x[0], node.settings['axes'], keepdims=node.settings['keep']),
    'concat': lambda node, scales, x: jnp.concatenate(x, node.settings['axis']),
    'max_pool': lambda node, scales, x: _window(node, x[0], -np.inf, jax.lax.max),
    'average_pool': _average_pool,
    'reshape': lambda node, scales, x: x[0].reshape(node.output.shape),
    'transpose': lambda node, scales, x: x[0].transpose(node.settings['permutation']),
    'slice': lambda node, scales, x: jax.lax.slice(x[0], node.settings['start'], node.settings['limit']),
    'pad': lambda node, scales, x: jnp.pad(x[0], node.settings['padding']),
    'clamp': lambda node, scales, x: x[0]}
