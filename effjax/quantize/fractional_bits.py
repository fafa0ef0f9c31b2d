"""FracBits: one real number of bits for an array, between the grids of its two neighbours."""
import jax
import jax.numpy as jnp

from effjax import ste
from effjax.errors import EffjaxError
from effjax.quantize.granularity import check_finite
from effjax.quantize.lsq import floored, initial_scale, quantize
from effjax.reparam import Fact, Rule, Slots


def fractional_bits(*, smallest: int = 2, largest: int = 8, initial: float | None = None, per_channel: bool = True,
                    channel_axis: int = -1) -> Rule:
  """`y = (1 - f) lsq_n(w) + f lsq_{n+1}(w)`, `n + f` the learned width: n whole, f in [0, 1].

  With `key=None` the nearest width alone (of two the even one), exactly. Gradient: `dy/dbits = lsq_{n+1} - lsq_n`, at a
  whole width that to the right (but at the largest); LSQ's through both grids. A width outside its limits counts as
  the limit and still receives the gradient, so that it can come back.

  The loss has to pay for bits: `cost.bitops` of the soft facts is linear in the width, as in the paper.

  Args:
    smallest, largest: the limits of the width, in 2..8.
    initial: the width at the start; None is the largest.
    per_channel, channel_axis: as in `lsq`.

  Slots: theta = w; phi = {'bits': [], 'scale': [k, ...] for each whole width}, float32; no state. Decisions: the bits.
  Facts: soft, the two widths and their shares 1 - f and f; hard, the rounded width and its scale. Runs on integers.

  Raises:
    EffjaxError: limits outside 2..8 or not ascending; an initial width outside; an axis that is not there; weights that
      are not finite.

  Differs from the paper: LSQ's learned scales, one per width; no regularisation of its own and no freezing of widths
  before the end, which are the training's affair; weights only, here.

  Source: Yang, Jin, "FracBits: Mixed Precision Quantization via Fractional Bit-Widths", AAAI 2021, arXiv:2007.02017.

  >>> rule = fractional_bits(initial=4.25)
  >>> slots = rule.init(jax.random.key(0), jnp.ones((3, 2)))
  >>> rule.facts(slots, False)[::3], float(rule.facts(slots, True).bits)
  ((Array([4., 5.], dtype=float32), Array([0.75, 0.25], dtype=float32)), 4.0)
  """
  start = _checked(smallest, largest, initial)
  widths = range(smallest, largest + 1)

  def init(key, w):
    check_finite('fractional_bits', w)
    scales = [initial_scale(w, b, per_channel=per_channel, channel_axis=channel_axis) for b in widths]
    return Slots(w, {'bits': jnp.float32(start), 'scale': jnp.stack(scales)}, {})

  def split(phi):
    """The place of the lower width, and f."""
    bits = ste.surrogate(jnp.clip(phi['bits'], smallest, largest), phi['bits'], jnp.float32(1))
    lower = jnp.clip(jnp.floor(jax.lax.stop_gradient(bits)), smallest, largest - 1)
    return lower.astype(jnp.int32) - smallest, bits - lower

  nearest = lambda phi: jnp.round(jnp.clip(phi['bits'], smallest, largest)).astype(jnp.int32) - smallest
  grid = lambda i, w, scale: jax.lax.switch(i, [lambda w, s, i=i, b=b: quantize(w, s[i], b)
                                                for i, b in enumerate(widths)], w, scale)

  def apply(w, phi, state, key):
    if key is None:
      return grid(nearest(phi), w, phi['scale'])
    place, f = split(phi)
    f = f.astype(w.dtype)
    return (1 - f) * grid(place, w, phi['scale']) + f * grid(place + 1, w, phi['scale'])

  def facts(slots, hard):
    if hard:
      place = nearest(slots.phi)
      return Fact(bits=(place + smallest).astype(jnp.float32), scale=floored(slots.phi['scale'][place]))
    place, f = split(slots.phi)
    lower = (place + smallest).astype(jnp.float32)
    return Fact(bits=jnp.stack([lower, lower + 1]), choice=jnp.stack([1 - f, f]))

  return Rule(init, apply, facts, decisions=frozenset({'bits'}))


def _checked(smallest, largest, initial):
  if not (isinstance(smallest, int) and isinstance(largest, int) and 2 <= smallest < largest <= 8):
    raise EffjaxError(f'fractional_bits: wants whole widths 2 <= smallest < largest <= 8, got {smallest!r} and '
                      f'{largest!r}: for a single width use quantize.lsq')
  start = largest if initial is None else initial
  if not smallest <= start <= largest:
    raise EffjaxError(f'fractional_bits: initial must be from {smallest} to {largest}, got {initial}')
  return start
