"""Bilinear interpolation of 16-bit codes, at positions of 10 fractional bits."""
import jax.numpy as jnp
import numpy as np

from effjax.export.reference.int64 import add, magnitude, shifted, times, wide
from effjax.export.reference.rounding import clipped


def _resize_bilinear(node, sources, x, kernels):
  """Sums of 36 bits, ties away from zero. The codes keep their scale."""
  (top, bottom, down), (left, right, along) = (_positions(x[0].shape[i + 1], node.settings, i) for i in (0, 1))
  down, along = down[None, :, None, None], along[None, None, :, None]
  rows = jnp.take(x[0], top, 1) * jnp.asarray(1024 - down) + jnp.take(x[0], bottom, 1) * jnp.asarray(down)
  total = add(times(wide(jnp.take(rows, left, 2)), 1024 - along), times(wide(jnp.take(rows, right, 2)), along))
  size = shifted(add(magnitude(total), wide(np.full((1,) * 4, 2 ** 19))), 20)
  return clipped(node, jnp.where(total.high < 0, -size, size), 'builtin')


def _positions(size, settings, axis):
  """The two pixels around each output, and how far it is from the first, in 1024ths."""
  wanted = settings['size'][axis]
  step = (1024 * size + wanted // 2) // wanted
  if settings['align_corners'] and wanted > 1:
    step = (1024 * (size - 1) + (wanted - 1) // 2) // (wanted - 1)
  at = np.arange(wanted) * step + (step // 2 - 512 if settings['half_pixel'] else 0)
  first, second = np.maximum(at // 1024, 0), np.minimum(-(-at // 1024), size - 1)
  return first, second, np.where(first >= second, 0, at - 1024 * first).astype(np.int32)


KERNELS16 = {'resize_bilinear': _resize_bilinear}
