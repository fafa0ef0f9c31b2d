"""Quantizers at every activation that the device stores, without editing the model."""
from collections.abc import Callable
from typing import Any

import jax

from effjax.graph.taps import collect, insert, taps
from effjax.quantize.lsq_plus import ActivationQuantizer, lsq_plus
from effjax.tree import PyTree


def activations(fn: Callable, params: PyTree, *args: PyTree,
                quantizer: ActivationQuantizer | None = None) -> tuple[Callable, dict[str, Any]]:
  """`(fn_q, ranges)`: `fn_q(ranges, params, *args)` is `fn` with a quantizer at each tap of `effjax.graph.taps`.

  `ranges = {range of a tap: phi}` is a pytree to train beside the weights. What is taken out of it stays float.

  Args:
    fn: any JAX function whose first argument is a tree of parameters, in training or inference mode.
    args: a batch of real data: the ranges start from the activations that it gives.
    quantizer: what stands at each tap; None is `lsq_plus()`.

  >>> import jax.numpy as jnp
  >>> fn_q, ranges = activations(lambda p, x: x @ p['fc']['w'], {'fc': {'w': jnp.eye(2)}}, jnp.ones((1, 2)))
  >>> sorted(ranges), fn_q(ranges, {'fc': {'w': jnp.eye(2)}}, jnp.array([[.5, 9.]]))
  (['fc', 'input'], Array([[0.49803925, 1.        ]], dtype=float32))
  """
  quantizer = quantizer or lsq_plus()
  names = sorted({tap.range for tap in taps(fn, params, *args)})

  @jax.jit
  def init(params, *args):
    found = collect(fn, names)(params, *args)[1]
    return {name: quantizer.init(found[name]) for name in names}

  def quantized(ranges, params, *args):
    at = {name: lambda x, phi=phi: quantizer.apply(phi, x) for name, phi in ranges.items()}
    return insert(fn, at)(params, *args)

  return quantized, init(params, *args)
