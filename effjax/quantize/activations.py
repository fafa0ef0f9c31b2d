"""Quantizers at every activation that the device stores, without editing the model."""
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from effjax.errors import EffjaxError
from effjax.graph.taps import Tap, collect, insert, taps
from effjax.quantize.lsq_plus import ActivationQuantizer, fixed, lsq_plus
from effjax.tree import PyTree

# (scale, zero point) that LiteRT's kernels insist on, by bits of activations and the function's name.
FIXED = {8: {'logistic': (1 / 256, -128), 'softmax': (1 / 256, -128), 'tanh': (1 / 128, 0),
             'log_softmax': (1 / 16, 127)},
         16: {'logistic': (1 / 32768, 0), 'softmax': (1 / 32768, 0), 'tanh': (1 / 32768, 0)}}


def activations(fn: Callable, params: PyTree, *args: PyTree,
                quantizer: ActivationQuantizer | None = None) -> tuple[Callable, dict[str, Any]]:
  """`(fn_q, ranges)`: `fn_q(ranges, params, *args)` is `fn` with a quantizer at each tap of `effjax.graph.taps`.

  `ranges = {range of a tap: phi}` is a pytree to train beside the weights. What is taken out of it stays float.

  Args:
    fn: any JAX function whose first argument is a tree of parameters, in training or inference mode.
    args: a batch of real data: the ranges start from the activations that it gives.
    quantizer: what stands at each tap whose range is free (see `quantizers`); None is `lsq_plus()`.

  Raises:
    EffjaxError: an activation that is not finite on this batch; `fn_q` with a range of no tap.

  >>> import jax.numpy as jnp
  >>> fn_q, ranges = activations(lambda p, x: x @ p['fc']['w'], {'fc': {'w': jnp.eye(2)}}, jnp.ones((1, 2)))
  >>> sorted(ranges), fn_q(ranges, {'fc': {'w': jnp.eye(2)}}, jnp.array([[.5, 9.]]))
  (['fc', 'input'], Array([[0.49803925, 1.        ]], dtype=float32))
  """
  at = quantizers(fn, params, *args, quantizer=quantizer)

  @jax.jit
  def init(params, *args):
    found = collect(fn, at)(params, *args)[1]
    return {name: each.init(found[name]) for name, each in at.items()}

  def quantized(ranges, params, *args):
    for name in ranges.keys() - at.keys():
      raise EffjaxError(f'activations: range {name!r} belongs to no tap that ran when the ranges were made: choose '
                        f'from {sorted(at)}, or make the ranges anew with this function')
    functions = {name: lambda x, name=name, phi=phi: at[name].apply(phi, x) for name, phi in ranges.items()}
    return insert(fn, functions)(params, *args)

  ranges = init(params, *args)
  check_ranges('activations', ranges)
  return quantized, ranges


def check_ranges(who: str, ranges: dict[str, Any]) -> None:
  """Refuses ranges that are not finite. Says nothing under `jit`, where they are not known.

  Raises:
    EffjaxError: a range that is infinite or not a number, as of an activation that was so.

  >>> check_ranges('activations', {'input': {'scale': np.float32(1)}})
  """
  for name, phi in ranges.items():
    if not all(isinstance(x, jax.core.Tracer) or np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(phi)):
      raise EffjaxError(f'{who}: the activation {name!r} is not finite on this batch: look at what the function makes '
                        'of it before quantizing')


def quantizers(fn: Callable, params: PyTree, *args: PyTree,
               quantizer: ActivationQuantizer | None = None) -> dict[str, ActivationQuantizer]:
  """The quantizer of each range of `fn`'s taps, by name: `quantizer`, unless a kernel of the target fixes the range.

  Fixed are the results of logistic, tanh, softmax and log_softmax, and what is clamped to bounds that no kernel has
  (a hard sigmoid to [0, 1]). What a root or a logarithm reads starts at 0, whatever `quantizer` is; what only ReLU
  makes does if `quantizer` says how (`ActivationQuantizer.from_zero`).

  >>> fn = lambda p, x: jax.nn.sigmoid(x @ p['w'])
  >>> found = quantizers(fn, {'w': jax.numpy.eye(2)}, jax.numpy.ones((1, 2)))
  >>> [(name, [float(fact) for fact in found[name].facts({})]) for name in found if 'logistic' in name]
  [('w/logistic', [0.00390625, -128.0])]
  """
  quantizer = quantizer or lsq_plus()
  found = taps(fn, params, *args)
  own = ((tap.range, _own(tap, quantizer)) for tap in found)  # of several taps of a range one says so
  below = {tap.range for tap in found if tap.low < 0}
  free = lambda name: quantizer if name in below or not quantizer.from_zero else quantizer.from_zero()
  return {tap.range: free(tap.range) for tap in found} | {name: each for name, each in own if each}


def _own(tap: Tap, quantizer: ActivationQuantizer) -> ActivationQuantizer | None:
  """The quantizer of a range that is not free, None for others."""
  bits = quantizer.bits
  if tap.kind in FIXED.get(bits, {}):
    return fixed(*FIXED[bits][tap.kind], bits)
  if tap.bounds is not None:
    if bits == 16:  # around 0
      return fixed(max(map(abs, tap.bounds)) / 32767, 0, 16)
    scale = (tap.bounds[1] - tap.bounds[0]) / (2 ** bits - 1)
    return fixed(scale, -2 ** (bits - 1) - round(tap.bounds[0] / scale), bits)
  return lsq_plus(bits, zero_point=-2 ** (bits - 1)) if tap.positive and bits < 16 else None
