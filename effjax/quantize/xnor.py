"""XNOR-Net's binary weights: -a or a."""
import jax
import jax.numpy as jnp

from effjax import ste
from effjax.quantize.exact_scale import by_group, exact_scale, nearest_codes
from effjax.quantize.granularity import check_finite
from effjax.quantize.lsq import floored
from effjax.reparam import Fact, Rule, Slots

CODES = (1,)


def xnor(*, per_channel: bool = True, channel_axis: int = -1) -> Rule:
  """`y = a sign(w)`, `a = mean|w|`, the pair of least squared error; +1 at 0.

  Gradient, equation after (9) of the paper: `dy_i/dw_i = 1/n + a [|w_i| <= 1]` for the n weights that share a, and 0
  between different weights.

  Args:
    per_channel: one a per entry of `channel_axis`, as in the paper; else one for the array.
    channel_axis: the output channels.

  Slots: theta = w; no phi, no state.
  Facts: 1 bit, the scale a (never below 2^-20). Runs on integers.

  Raises:
    EffjaxError: an axis that is not there; weights that are not finite.

  Differs from the paper: weights only, as no integer kernel takes binary activations (`bnn.sign_activation` is for
  studies of these).

  Source: Rastegari, Ordonez, Redmon, Farhadi, "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural
  Networks", ECCV 2016, arXiv:1603.05279.

  >>> rule = xnor(per_channel=False)
  >>> rule.apply(*rule.init(jax.random.key(0), jnp.array([1., -.5, 0.])), None)
  Array([ 0.5, -0.5,  0.5], dtype=float32)
  """
  fit = lambda w: floored(by_group('xnor', lambda v: exact_scale(v, CODES), w, per_channel, channel_axis))

  def init(key, w):
    check_finite('xnor', w)
    fit(w)  # whose errors come now
    return Slots(w, {}, {})

  def apply(w, phi, state, key):
    scale = jax.lax.stop_gradient(fit(w))
    slope = scale.size / w.size + scale * (jnp.abs(w) <= 1).astype(jnp.float32)
    return ste.surrogate((nearest_codes(w, scale, CODES) * scale).astype(w.dtype), w, slope.astype(w.dtype))

  return Rule(init, apply, lambda slots, hard: Fact(bits=jnp.float32(1), scale=fit(slots.theta)))
