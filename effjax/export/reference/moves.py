"""What only moves integers: reshape, transpose, slice, pad, concatenation."""
import jax.numpy as jnp


def _slice(node, sources, x, kernels):
  s = node.settings
  steps = s.get('strides', (1,) * len(s['start']))
  return x[0][(slice(None), *map(slice, s['start'][1:], s['limit'][1:], steps[1:]))]


def _concat(node, sources, x, kernels):
  batch = max(map(len, x))  # a constant has a batch of one
  return jnp.concatenate([jnp.broadcast_to(part, (batch, *part.shape[1:])) for part in x], node.settings['axis'])


def _pad(node, sources, x, kernels):
  value = -128 if node.settings.get('lowest') else sources[0].zero_point
  return jnp.pad(x[0], node.settings['padding'], constant_values=value)


KERNELS = {
    'concat': _concat,
    'broadcast': lambda node, sources, x, kernels: jnp.broadcast_to(x[0], (len(x[0]), *node.output.shape[1:])),
    'reshape': lambda node, sources, x, kernels: x[0].reshape(-1, *node.settings['shape']),
    'transpose': lambda node, sources, x, kernels: x[0].transpose(node.settings['permutation']),
    'slice': _slice, 'pad': _pad}
