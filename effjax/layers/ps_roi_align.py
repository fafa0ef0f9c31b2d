"""Position-sensitive features of regions: each bin of a region has channels of its own."""
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.errors import EffjaxError


def ps_roi_align(x: Float[Array, 'h w c'], boxes: Float[Array, 'r 4'], size: int = 7, *, scale: float = 1.,
                 samples: int = 2) -> Float[Array, 'r {size} {size} k']:
  """`y[r, i, j, k]` is the mean of channel `(k size + i) size + j` over bin (i, j) of region r: `c = k size^2`.

  A region is divided into size x size bins, and a bin is averaged over samples x samples points, interpolated
  bilinearly between the centres of pixels. Points outside take the nearest pixel, or 0 where they are more than one
  pixel away. Both axes are sums with weights `max(0, 1 - |point - pixel|)`, so that two matrix products do it, with
  derivatives by x and by the boxes. For batches: `jax.vmap`.

  Args:
    x: features of one image.
    boxes: (y0, x0, y1, x1) in pixels of the image, edges, not centres.
    size: bins in each direction.
    scale: pixels of x per pixel of the image.
    samples: points of a bin in each direction.

  Raises:
    EffjaxError: channels that are no multiple of size^2.

  Source: Dai, Li, He, Sun, "R-FCN", NeurIPS 2016, arXiv:1605.06409, with the interpolation of He et al., "Mask R-CNN",
  ICCV 2017, arXiv:1703.06870; in ThunderNet, survey [11]. Channels are in the order of torchvision's ps_roi_align.

  >>> x = jnp.arange(16.).reshape(2, 2, 4)
  >>> ps_roi_align(x, jnp.array([[0., 0., 2., 2.]]), 2, samples=1)[0, ..., 0]
  Array([[ 0.,  5.],
         [10., 15.]], dtype=float32)
  """
  h, w, c = x.shape
  if c % size**2:
    raise EffjaxError(f'ps_roi_align: {c} channels are no multiple of the {size} x {size} bins: give x '
                      f'k {size**2} channels')
  rows = _weights(boxes[:, 0], boxes[:, 2], h, size, scale, samples)
  columns = _weights(boxes[:, 1], boxes[:, 3], w, size, scale, samples)
  summed = jnp.einsum('rih,hwkij->riwkj', rows, x.reshape(h, w, c // size**2, size, size))
  return jnp.einsum('rjw,riwkj->rijk', columns, summed)


def _weights(low, high, length, size, scale, samples):
  """[r, size, length]: how much each pixel of an axis counts in each bin."""
  places = (jnp.arange(size * samples, dtype=low.dtype) + .5) / (size * samples)
  points = scale * (low[:, None] + (high - low)[:, None] * places[None]) - .5
  near = (points >= -1) & (points <= length)
  pixels = jnp.arange(length, dtype=low.dtype)
  weights = jnp.maximum(0, 1 - jnp.abs(jnp.clip(points, 0, length - 1)[..., None] - pixels[None, None]))
  return (weights * near[..., None].astype(low.dtype)).reshape(-1, size, samples, length).mean(2)
