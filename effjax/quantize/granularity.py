"""How many weights share a scale, and what weights and blocks are refused."""
import jax
import numpy as np
from jaxtyping import Array, Float

from effjax.errors import EffjaxError


def shared_axes(who: str, shape: tuple[int, ...], per_channel: bool, channel_axis: int) -> tuple[int, ...]:
  """The axes that are reduced for one scale; `who` asks.

  Raises:
    EffjaxError: `per_channel` of an array where each weight would have its own scale; an axis that is not there.

  >>> shared_axes('lsq', (3, 3, 8, 16), True, -1), shared_axes('lsq', (8, 16), False, -1)
  ((0, 1, 2), (0, 1))
  """
  if not per_channel:
    return tuple(range(len(shape)))
  if len(shape) < 2:
    raise EffjaxError(f'{who}: per_channel wants at least 2 axes, got shape {shape}, where each weight would have its '
                      'own scale: narrow the pattern to kernels, or say per_channel=False')
  if not -len(shape) <= channel_axis < len(shape):
    raise EffjaxError(f'{who}: channel_axis {channel_axis} of an array of shape {shape}: wanted -{len(shape)} to '
                      f'{len(shape) - 1}')
  return tuple(axis for axis in range(len(shape)) if axis != channel_axis % len(shape))


def check_block(who: str, block: int) -> None:
  """Refuses what is no number of entries.

  Raises:
    EffjaxError: `block` is not a whole number from 1 on.

  >>> check_block('blockwise', 64)
  """
  if not (isinstance(block, int) and block >= 1):
    raise EffjaxError(f'{who}: block must be a whole number from 1 on, got {block!r}')


def check_finite(who: str, w: Float[Array, '*s']) -> None:
  """Refuses to start from weights that are not finite. Says nothing of weights under `jit`, which are not known.

  Raises:
    EffjaxError: an entry is infinite or not a number.

  >>> check_finite('uniform', jax.numpy.ones(2))
  """
  if not isinstance(w, jax.core.Tracer) and not np.isfinite(np.asarray(w, np.float32)).all():
    raise EffjaxError(f'{who}: an array of shape {w.shape} has entries that are not finite: look at it before '
                      'quantizing')
