"""Position-sensitive regions against points that are interpolated one by one."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from effjax.errors import EffjaxError
from effjax.layers import ps_roi_align

KEY = jax.random.key(0)
BOXES = jnp.array([[3., 2., 40., 61.], [-20., 10., 20., 30.], [30., 30., 90., 100.], [8., 8., 8.5, 8.5]])


def interpolated(x, y, z):
  """Bilinear between pixel centres; x is [h, w]."""
  h, w = x.shape
  if not (-1 <= y <= h and -1 <= z <= w):
    return 0.
  y, z = min(max(y, 0.), h - 1), min(max(z, 0.), w - 1)
  i, j = min(int(y), h - 2), min(int(z), w - 2)
  a, b = y - i, z - j
  return (1 - a) * ((1 - b) * x[i, j] + b * x[i, j + 1]) + a * ((1 - b) * x[i + 1, j] + b * x[i + 1, j + 1])


def reference(x, boxes, size, scale, samples):
  out = np.zeros((len(boxes), size, size, x.shape[-1] // size**2))
  for r, (y0, x0, y1, x1) in enumerate(np.float64(boxes) * scale):
    for i, j, k in np.ndindex(*out.shape[1:]):
      points = [interpolated(x[..., (k * size + i) * size + j], y0 + (y1 - y0) / size * (i + (a + .5) / samples) - .5,
                             x0 + (x1 - x0) / size * (j + (b + .5) / samples) - .5)
                for a in range(samples) for b in range(samples)]
      out[r, i, j, k] = np.mean(points)
  return out


@pytest.mark.parametrize(('size', 'samples'), [(2, 1), (3, 2)])
def test_is_the_mean_of_interpolated_points(size, samples):
  x = jax.random.normal(KEY, (4, 5, 2 * size**2))
  found = jax.jit(lambda x, boxes: ps_roi_align(x, boxes, size, scale=1 / 16, samples=samples))(x, BOXES)
  np.testing.assert_allclose(found, reference(np.float64(x), BOXES, size, 1 / 16, samples), rtol=1e-4, atol=1e-5)


def test_constant_channels_give_that_constant():
  constant = jnp.arange(245.)
  found = ps_roi_align(jnp.broadcast_to(constant, (6, 6, 245)), jnp.array([[4., 6., 60., 90.]]), scale=1 / 16)
  np.testing.assert_allclose(found[0], constant.reshape(5, 7, 7).transpose(1, 2, 0), rtol=1e-6)


def test_the_whole_map_gives_means_of_blocks():
  """Bins of 2 x 2 pixels, sampled in their centres: each the mean of its block in its own channel."""
  x = jax.random.normal(KEY, (6, 6, 9))
  found = jax.jit(lambda x: ps_roi_align(x, jnp.array([[0., 0., 6., 6.]]), 3))(x)
  blocks = np.float64(x).reshape(3, 2, 3, 2, 3, 3).mean((1, 3))  # [i, j, channel i, channel j]
  np.testing.assert_allclose(found[0, ..., 0], np.einsum('ijij->ij', blocks), rtol=1e-5, atol=1e-6)


def test_derivatives_by_the_features_and_the_boxes():
  x, boxes = jax.random.normal(KEY, (5, 5, 8)), jnp.array([[.73, 1.11, 3.87, 4.41]])
  loss = jax.jit(lambda x, boxes: jnp.sum(jnp.sin(ps_roi_align(x, boxes, 2))))
  with jax.enable_x64(True):
    x, boxes = x.astype(jnp.float64), boxes.astype(jnp.float64)
    check_grads(loss, (x, boxes), order=1, modes=['rev', 'fwd'], eps=1e-6)


def test_channels_that_the_bins_do_not_divide():
  with pytest.raises(EffjaxError, match='ps_roi_align: 10 channels are no multiple of the 3 x 3 bins: give x k 9 channels'):
    ps_roi_align(jnp.ones((4, 4, 10)), jnp.ones((1, 4)), 3)
