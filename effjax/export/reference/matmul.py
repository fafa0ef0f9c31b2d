"""The product of two activations. XNNPACK has no such kernel for int8: both sets run the builtin one."""
import jax.numpy as jnp
import numpy as np

from effjax.export.reference.rounding import fixed_point, fixed_rounding, stored


def _matmul(node, sources, x, kernels):
  """Leading axes broadcast. One multiplier of 31 bits, ties away from zero."""
  a, b = (q.swapaxes(-1, -2) - source.zero_point if node.settings[adjoint] else q - source.zero_point
          for q, source, adjoint in zip(x, sources, ('adj_x', 'adj_y')))
  ratio = np.float64(np.float32(sources[0].scale) * np.float32(sources[1].scale)) / np.float32(node.output.scale)
  return stored(node, fixed_rounding(jnp.matmul(a, b), *fixed_point(ratio), True))


KERNELS = {'matmul': _matmul}
