"""Ranges from several batches: once, after training, or a little at each step."""
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.graph.taps import collect
from effjax.quantize.activations import check_ranges
from effjax.quantize.aware import RANGES, WEIGHTS, Aware
from effjax.tree import PyTree


def calibrate(found: Aware, batches: Iterable[PyTree], *, entries: int = 2**16) -> Aware:
  """`found` whose ranges start from all batches as if they were one.

  With `aware` before and `deployed` after it, and no training between, this is post-training quantization:

      found = calibrate(aware(fn, params, x, quantizer=mse()), batches)
      fixed = deployed(found, found.reparam.init(key, found.params))

  Args:
    found: of `aware`, with any quantizer of activations.
    batches: of real data: each the argument after the parameters, or a tuple of all of them.
    entries: of each activation and batch that are looked at, spread evenly, and the smallest and the largest one
      besides; so `min_max` is exact, the others are estimates once an activation has more.

  Raises:
    EffjaxError: no batch; entries below 1; an activation that is not finite.

  >>> from effjax.quantize.aware import aware
  >>> from effjax.quantize.observed import min_max
  >>> found = aware(lambda p, x: x @ p['w'], {'w': jnp.eye(2)}, jnp.ones((1, 2)), quantizer=min_max())
  >>> found = calibrate(found, [jnp.ones((1, 2)), jnp.array([[-1., 5.]])])
  >>> [float(end) for end in found.params['ranges']['input'].values()]
  [5.0, -1.0]
  """
  look = jax.jit(lambda args: samples(found, found.params[WEIGHTS], *args, entries=entries))
  seen = [look(batch if isinstance(batch, tuple) else (batch,)) for batch in batches]
  if not seen:
    raise EffjaxError('calibrate: no batch was given: wanted at least one; an iterator is empty once it was read')
  pooled = {name: jnp.concatenate([each[name] for each in seen]) for name in seen[0]}
  ranges = jax.jit(lambda pooled: _ranges(found, pooled))(pooled)
  check_ranges('calibrate', ranges)
  return found._replace(params=found.params | {RANGES: ranges})


def update_ranges(found: Aware, params: PyTree, *args: PyTree, momentum: float | Float[Array, ''] = .99,
                  axis_name: str | None = None, entries: int = 2**16) -> PyTree:
  """`params` whose ranges moved towards this batch's: `momentum * range + (1 - momentum) * observed`.

  A pure function for the training step, beside the optimiser's:

      params = update_ranges(found, params, x)

  Args:
    found: of `aware`, with `min_max`, `percentile` or `mse`; ranges of another kind move likewise, phi by phi.
    params: `{'weights', 'ranges'}`, as trained.
    args: the batch.
    momentum: 0 to 1; 0 takes the batch's range.
    axis_name: within `pmap`: the batch is that of all devices. They exchange samples, not activations.
    entries: as for `calibrate`, of each device.

  Raises:
    EffjaxError: a momentum outside [0, 1]; entries below 1.

  Differs from the paper: what is observed is the float function of the weights that are given.

  Source: Jacob et al., CVPR 2018, arXiv:1712.05877, section 3.1.

  >>> from effjax.quantize.aware import aware
  >>> from effjax.quantize.observed import min_max
  >>> found = aware(lambda p, x: x @ p['w'], {'w': jnp.eye(2)}, jnp.ones((1, 2)), quantizer=min_max())
  >>> params = update_ranges(found, found.params, jnp.array([[-1., 3.]]), momentum=.5)
  >>> float(params['ranges']['input']['low']), float(params['ranges']['input']['high'])
  (-0.5, 2.0)
  """
  if not isinstance(momentum, jax.Array) and not 0 <= momentum <= 1:
    raise EffjaxError(f'update_ranges: momentum must be from 0 to 1, got {momentum}: it is the part of the old range '
                      'that stays')
  seen = samples(found, params[WEIGHTS], *args, entries=entries)
  if axis_name is not None:
    seen = jax.lax.all_gather(seen, axis_name, tiled=True)
  keep = jnp.asarray(momentum, jnp.float32)
  move = lambda old, new: (keep * old.astype(jnp.float32) + (1 - keep) * new.astype(jnp.float32)).astype(old.dtype)
  return params | {RANGES: jax.tree.map(move, params[RANGES], _ranges(found, seen))}


def samples(found: Aware, weights: PyTree, *args: PyTree, entries: int) -> dict[str, Float[Array, ' n']]:
  """Of each range's activation up to `entries` values, spread evenly, then its smallest and its largest one.

  Raises:
    EffjaxError: entries below 1.
  """
  if entries < 1:
    raise EffjaxError(f'calibrate: entries must be at least 1, got {entries}')
  return {name: _spread(x, entries) for name, x in collect(found.fn, found.quantizers)(weights, *args)[1].items()}


def _spread(x, entries):
  """The stride shares no factor with the size, so that it meets all channels and places alike."""
  if x.size <= entries:
    return x.ravel().astype(jnp.float32)
  stride = -(-x.size // entries)
  while math.gcd(stride, x.size) > 1 and stride < x.size:
    stride += 1
  return jnp.concatenate([x.ravel()[::stride], jnp.min(x)[None], jnp.max(x)[None]]).astype(jnp.float32)


def _ranges(found: Aware, samples):
  return {name: each.init(samples[name]) for name, each in found.quantizers.items()}
