"""The product of two activations."""
import jax.numpy as jnp
import numpy as np

from effjax.export.reference.rounding import fixed_point, fixed_rounding, float_rounding, stored

_F = np.float32


def _matmul(node, sources, x, kernels):
  """Leading axes broadcast. Builtin: one multiplier of 31 bits, ties away from zero.

  XNNPACK takes the product if the zero point of the second operand is 0, as it were weights, and rounds in float32.
  """
  a, b = (q.swapaxes(-1, -2) - source.zero_point if node.settings[adjoint] else q - source.zero_point
          for q, source, adjoint in zip(x, sources, ('adj_x', 'adj_y')))
  acc, scale, output = jnp.matmul(a, b), _F(sources[0].scale) * _F(sources[1].scale), _F(node.output.scale)
  if kernels == 'xnnpack' and sources[1].zero_point == 0:
    return float_rounding(node, acc, scale / output)
  return stored(node, fixed_rounding(acc, *fixed_point(np.float64(scale) / output), True))


KERNELS = {'matmul': _matmul}
