"""A whole network under quantization-aware training: LSQ on every weight of a kernel, a range at every activation."""
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax

from effjax import reparam
from effjax.errors import EffjaxError
from effjax.graph.channel_axes import channel_axes
from effjax.graph.profile import profile
from effjax.quantize.activations import activations, quantizers
from effjax.quantize.lsq import lsq
from effjax.quantize.lsq_plus import ActivationQuantizer
from effjax.reparam import Fact, Reparam, Slots
from effjax.tree import Path, PyTree

WEIGHTS, RANGES = 'weights', 'ranges'


class Aware(NamedTuple):
  """fn: the float function of `weights`. apply: the quantized one, of `params = {'weights': ..., 'ranges': ...}`.

  params: where training starts. reparam: LSQ on the kernels of `params`; the ranges train as ordinary parameters.
  quantizers: of the activations, by range.
  """
  fn: Callable
  apply: Callable
  params: dict[str, Any]
  reparam: Reparam
  quantizers: dict[str, ActivationQuantizer]


class Deployed(NamedTuple):
  """What is fixed once training is over: weights = codes * scales, facts by path, (scale, zero point, bits) by tap."""
  weights: PyTree
  facts: dict[Path, Fact]
  ranges: dict[str, tuple[float, int, int]]


def aware(fn: Callable, params: PyTree, *args: PyTree, bits: int | Mapping[Path, int] = 8,
          quantizer: ActivationQuantizer | None = None, dense_per_tensor: bool = False) -> Aware:
  """`fn` with every convolution's and product's weight on a learned grid, and every activation that is stored, too.

  Args:
    fn: any JAX function in inference mode (BatchNorm with running statistics: it folds exactly, later).
    params, args: its parameters and a batch of real data, which the ranges start from.
    bits: of all weights, or by path; a kernel that is not named gets 8.
    quantizer: of the activations; None is `lsq_plus()`. `lsq_plus(16)` for kernels of 16-bit activations.
    dense_per_tensor: one scale for all outputs of a dense layer, as older firmware wants it (BatchNorm behind it brings
      back one for each).

  Raises:
    EffjaxError: a path in `bits` that feeds no convolution or product; `dense_per_tensor` without a dense layer.

  >>> import jax, jax.numpy as jnp
  >>> found = aware(lambda p, x: x @ p['w'], {'w': jnp.eye(2)}, jnp.ones((1, 2)), bits=4)
  >>> slots = found.reparam.init(jax.random.key(0), found.params)
  >>> sorted(slots.phi[0]), found.apply(found.reparam.apply(*slots, None), jnp.ones((1, 2))).shape
  (['weights/w'], (1, 2))
  """
  rows = [row for row in profile(fn, params, *args).rows if row.path is not None]
  kernels = {row.path for row in rows}
  dense = {row.path for row in rows if row.kind == 'dense'} if dense_per_tensor else set()
  if dense_per_tensor and not dense:
    raise EffjaxError(f'aware: dense_per_tensor=True, but none of {sorted(kernels)} is dense: leave it out')
  named = dict.fromkeys(kernels, bits) if isinstance(bits, int) else dict.fromkeys(kernels, 8) | dict(bits)
  check_kernels(named, kernels)
  quantized, ranges = activations(fn, params, *args, quantizer=quantizer)
  found = quantizers(fn, params, *args, quantizer=quantizer)
  apply = lambda both, *args: quantized(both[RANGES], both[WEIGHTS], *args)
  axes = channel_axes(fn, params, *args)
  kinds = {path: (width, path not in dense, axes.get(path, -1)) for path, width in named.items()}
  return Aware(fn, apply, {WEIGHTS: params, RANGES: ranges}, _lsq(kinds), found)


def check_kernels(paths: Collection[Path], kernels: Collection[Path]) -> None:
  """Bits belong to weights of convolutions and products.

  Raises:
    EffjaxError: a path is none of `kernels`.
  """
  if strange := sorted(set(paths) - set(kernels)):
    raise EffjaxError(f'aware: bits are given for {strange}, which feed no convolution or product: '
                      f'wanted some of {sorted(kernels)}')


def deployed(found: Aware, slots: Slots) -> Deployed:
  """The values that the device will hold, from trained slots of `found.reparam`."""
  both = jax.jit(lambda slots: found.reparam.apply(*slots, None))(slots)  # one program, not one for each shape
  facts = {path.removeprefix(WEIGHTS + '/'): fact for path, fact in found.reparam.facts(slots, True).items()}
  ranges = {tap: (*found.quantizers[tap].facts(phi), found.quantizers[tap].bits) for tap, phi in both[RANGES].items()}
  ranges = {tap: (float(scale), int(zero), bits) for tap, (scale, zero, bits) in ranges.items()}
  return Deployed(both[WEIGHTS], facts, ranges)


def _lsq(kinds: dict[Path, tuple[int, bool, int]]) -> Reparam:
  """LSQ on each path, by its bits, whether each channel has a scale, and the channels' axis."""
  parts = []
  for kind in sorted(set(kinds.values())):
    chosen = {f'{WEIGHTS}/{path}' for path, other in kinds.items() if other == kind}
    width, per_channel, axis = kind
    parts.append(reparam.at(chosen.__contains__, lsq(width, per_channel=per_channel, channel_axis=axis)))
  return reparam.chain(*parts)
