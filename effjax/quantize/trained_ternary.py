"""Trained ternary quantization: -n, 0 or p, both learned."""
import functools

import jax
import jax.numpy as jnp

from effjax.errors import EffjaxError
from effjax.quantize.exact_scale import ordered_sum
from effjax.quantize.granularity import check_finite
from effjax.quantize.lsq import floored
from effjax.quantize.ternary import signs
from effjax.reparam import Fact, Rule, Slots


def trained_ternary(*, threshold: float = .05) -> Rule:
  """`y = p` where `w > d`, -n where `w < -d`, else 0; `d = threshold max|w|`; p and n are learned, for the array.

  Gradient: `dy/dp = [w > d]`, `dy/dn = -[w < -d]`; `dy/dw = p` where `w > d`, n where `w < -d`, else 1; d constant.

  Args:
    threshold: part of `max|w|`.

  Slots: theta = w; phi = {'positive': p, 'negative': n}, float32 scalars; no state.
  Facts: 2 bits, the levels (-n, 0, p) of a scale 1, p and n never below 2^-20. No integer kernel multiplies by these.

  Raises:
    EffjaxError: a threshold outside of 0 to below 1; weights that are not finite.

  Differs from the paper: its equation for the gradient of n lacks the sign that -n has; p and n start at the means of
  the weights that they replace.

  Source: Zhu, Han, Mao, Dally, "Trained Ternary Quantization", ICLR 2017, arXiv:1612.01064.

  >>> rule = trained_ternary(threshold=.2)
  >>> rule.apply(*rule.init(jax.random.key(0), jnp.array([1., .5, -.5, .1])), None)
  Array([ 0.75,  0.75, -0.5 ,  0.  ], dtype=float32)
  """
  if not 0 <= threshold < 1:
    raise EffjaxError(f'trained_ternary: threshold must be from 0 to below 1, got {threshold!r}: a part of max|w|')

  def init(key, w):
    check_finite('trained_ternary', w)
    code = _codes(w, threshold)
    every = _mean(w, code != 0, jnp.float32(0))
    return Slots(w, {'positive': _mean(w, code > 0, every), 'negative': _mean(w, code < 0, every)}, {})

  def facts(slots, hard):
    p, n = floored(slots.phi['positive']), floored(slots.phi['negative'])
    return Fact(bits=jnp.float32(2), scale=jnp.float32(1), levels=jnp.stack([-n, jnp.zeros_like(n), p]))

  return Rule(init, lambda w, phi, state, key: _levels(w, phi['positive'], phi['negative'], threshold), facts)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _levels(w, positive, negative, threshold):
  return _chosen(_codes(w, threshold), floored(positive), -floored(negative), jnp.float32(0)).astype(w.dtype)


@_levels.defjvp
def _levels_jvp(threshold, primals, tangents):
  (w, positive, negative), (dw, dp, dn) = primals, tangents
  code = _codes(w, threshold)
  slope = _chosen(code, floored(positive), floored(negative), jnp.float32(1))
  moved = _chosen(code, dp.astype(jnp.float32), -dn.astype(jnp.float32), jnp.float32(0))
  return _levels(w, positive, negative, threshold), (slope * dw.astype(jnp.float32) + moved).astype(w.dtype)


def _codes(w, threshold):
  w = w.astype(jnp.float32)
  return signs(w, threshold * jnp.max(jnp.abs(w)))


def _chosen(code, above, below, between):
  return jnp.where(code > 0, above, jnp.where(code < 0, below, between))


def _mean(w, chosen, otherwise):
  """Of the magnitudes of the chosen weights; `otherwise` where there are none."""
  total = ordered_sum(jnp.where(chosen, jnp.abs(w.astype(jnp.float32)), 0.).reshape(1, -1))[0]
  count = jnp.sum(chosen).astype(jnp.float32)
  return jnp.where(count > 0, total / jnp.maximum(count, 1), otherwise)
