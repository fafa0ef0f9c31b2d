"""Ternary weight networks: -a, 0 or a."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax import ste
from effjax.errors import EffjaxError
from effjax.quantize.exact_scale import by_group, exact_scale, ordered_sum
from effjax.quantize.granularity import check_finite
from effjax.quantize.lsq import floored
from effjax.reparam import Fact, Rule, Slots

CODES = (0, 1)


def ternary(*, factor: float | None = None, per_channel: bool = True, channel_axis: int = -1) -> Rule:
  """`y = a t`, t in {-1, 0, 1}: `t = sign(w) [|w| > d]`, `a = mean(|w| : |w| > d)`.

  With `factor=None`, d is the one of least squared error `||w - a t||^2`, found by sorting |w|: with k weights kept it
  is `||w||^2 - (sum of the k largest |w|)^2 / k`, and `d = a / 2`. Else `d = factor mean|w|`, without sorting.
  Gradient: `dy/dw = 1` everywhere; a and d are constants.

  Args:
    factor: of `mean|w|`; the paper's is 0.7, exact for Gaussian weights would be 0.767 and for uniform ones 2/3.
    per_channel: a and d of its own for each entry of `channel_axis`; else one for the array.
    channel_axis: the output channels.

  Slots: theta = w; no phi, no state.
  Facts: 2 bits, the scale a (never below 2^-20). Runs on integers.

  Raises:
    EffjaxError: a factor outside 0 to 1, at which nothing or not everything would be kept; an axis that is not there;
      weights that are not finite.

  Differs from the paper: exact thresholds, and a scale per channel, unless told otherwise.

  Source: Li, Zhang, Liu, "Ternary Weight Networks", 2016, arXiv:1605.04711, survey [37].

  >>> rule = ternary(per_channel=False)
  >>> rule.apply(*rule.init(jax.random.key(0), jnp.array([1., -.5, .1])), None)
  Array([ 0.75, -0.75,  0.  ], dtype=float32)
  """
  if factor is not None and not 0 < factor < 1:
    raise EffjaxError(f'ternary: factor must be above 0 and below 1, got {factor!r}: 0.7 is the papers, None is exact')

  def parts(w):
    fit = lambda f: by_group('ternary', f, w, per_channel, channel_axis)
    if factor is None:
      scale = floored(fit(lambda v: exact_scale(v, CODES)))
      return scale, scale * .5
    return floored(fit(lambda v: _mean_above(v, factor)[0])), fit(lambda v: _mean_above(v, factor)[1])

  def init(key, w):
    check_finite('ternary', w)
    parts(w)  # whose errors come now
    return Slots(w, {}, {})

  def apply(w, phi, state, key):
    scale, threshold = jax.lax.stop_gradient(parts(w))
    return ste.surrogate((scale * signs(w, threshold)).astype(w.dtype), w, jnp.ones_like(w))

  return Rule(init, apply, lambda slots, hard: Fact(bits=jnp.float32(2), scale=parts(slots.theta)[0]))


def signs(w: Float[Array, '*s'], threshold: Float[Array, '#*s'] | Float[Array, '']) -> Float[Array, '*s']:
  """1 where `w > threshold`, -1 where `w < -threshold`, else 0; float32.

  >>> signs(jnp.array([.3, -.2, -.3]), jnp.array([.25]))
  Array([ 1.,  0., -1.], dtype=float32)
  """
  w = w.astype(jnp.float32)
  return (w > threshold).astype(jnp.float32) - (w < -threshold).astype(jnp.float32)


def _mean_above(v, factor):
  """Mean of the entries of each row above `factor` times its mean, and that threshold."""
  threshold = ordered_sum(v) * (factor / v.shape[1])
  kept = v > threshold[:, None]
  return ordered_sum(jnp.where(kept, v, 0.)) / jnp.maximum(jnp.sum(kept, 1), 1).astype(jnp.float32), threshold
