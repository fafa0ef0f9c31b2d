"""APoT: levels that are sums of powers of two, dense where weights are."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax import ste
from effjax.errors import EffjaxError
from effjax.quantize.exact_scale import ordered_sum
from effjax.quantize.granularity import check_finite
from effjax.quantize.lsq import floored
from effjax.reparam import Fact, Rule, Slots

EPSILON = 2.**-40  # beside the variance: weights that are all the same are 0 when normalised


def apot(bits: int = 4, *, k: int = 2, initial_clip: float = 3.) -> Rule:
  """`y = alpha P(clip(v / alpha, -1, 1))`, `v = (w - mean) / std`, P the nearest level, of a tie the smaller magnitude.

  The levels are plus and minus the sums of one entry of each of `n = (bits - 1) / k` sets
  `{0, 2^-i, 2^-(i+n), ..., 2^-(i+(2^k-2)n)}`, i < n, times what makes the largest 1 (equation 4): see `apot_levels`.

  Gradient (equation 6): `dy/dv = [|v| <= alpha]`; `dy/dalpha = P(v/alpha) - v/alpha` inside, `sign(v)` outside;
  autodiff's through mean and std.

  Args:
    bits: 2 to 8, the sign among them.
    k: 1 to 4, bits of each term: 1 is a uniform grid, `bits - 1` powers of two alone.
    initial_clip: of alpha, in standard deviations.

  Slots: theta = w; phi = {'alpha'}, a float32 scalar; no state.
  Facts: bits; the scale alpha (never below 2^-20); `2^bits - 1` levels. Runs on no integer kernel: export refuses it.

  Raises:
    EffjaxError: bits or k out of range; a k that does not divide `bits - 1`, but for 2; an initial clip that is not
      positive; weights that are not finite.

  Differs from the paper: 2^-40 is added to the variance; weights alone, for activations that is `apot_levels`. As
  there y has the standard deviation of about 1 whatever that of w: put BatchNorm behind it.

  Source: Li, Dong, Wang, "Additive Powers-of-Two Quantization: An Efficient Non-uniform Discretization for Neural
  Networks", ICLR 2020, arXiv:1909.13144; an odd number of bits as in the authors' code.

  >>> rule = apot(3)
  >>> slots = rule.init(jax.random.key(0), jnp.array([[-1., 1., 5.], [-5., 2., -2.]]))
  >>> rule.facts(slots, True).levels, rule.apply(*slots, None)
  (Array([-1.  , -0.5 , -0.25,  0.  ,  0.25,  0.5 ,  1.  ], dtype=float32),
   Array([[ 0.  ,  0.  ,  1.5 ], [-1.5 ,  0.75, -0.75]], dtype=float32))
  """
  magnitudes = apot_levels(bits - 1, k=k) if isinstance(bits, int) and 2 <= bits <= 8 else _refuse(bits)
  levels = np.concatenate([-magnitudes[:0:-1], magnitudes])
  if not initial_clip > 0:
    raise EffjaxError(f'apot: initial_clip must be above 0, got {initial_clip}: the paper takes 3')

  def init(key, w):
    check_finite('apot', w)
    return Slots(w, {'alpha': jnp.float32(initial_clip)}, {})

  def apply(w, phi, state, key):
    alpha = ste.surrogate(floored(phi['alpha']), phi['alpha'], jnp.float32(1))  # one below the floor can come back
    ratio = ste.clip(_normalised(w) * (1 / alpha), jnp.float32(-1), jnp.float32(1))
    return (ste.surrogate(_nearest(ratio, magnitudes), ratio, jnp.ones_like(ratio)) * alpha).astype(w.dtype)

  return Rule(init, apply, lambda slots, hard: Fact(
      bits=jnp.float32(bits), scale=floored(slots.phi['alpha']), levels=jnp.asarray(levels)))


def apot_levels(bits: int, *, k: int = 2) -> np.ndarray:
  """The `2^bits` levels from 0 to 1 of `bits` without a sign: sums of an entry of each set of powers (see `apot`).

  All exponents are different, so that all sums are. Where one bit is left over (k = 2), it is a set of one power, which
  comes before the last of each other set.

  Raises:
    EffjaxError: k outside 1..4; a k that does not divide the bits, but for 2.

  >>> [[float(level) for level in apot_levels(*case) * 10] for case in [(2,)]], len(apot_levels(3)), len(apot_levels(4))
  ([[0.0, 2.5, 5.0, 10.0]], 8, 16)
  """
  terms, left = divmod(bits, k) if k in (1, 2, 3, 4) else (0, 0)
  if not terms or (left and k != 2):
    raise EffjaxError(f'apot: k must be from 1 to 4 and divide the {bits} bits without the sign, or be 2 from 2 bits '
                      f'on, got {k!r}')
  powers = iter(range(bits * 2**k))
  sets: list[list[int]] = [[] for _ in range(terms)]
  last: list[list[int]] = [[]] * left
  for rank in range(2**k - 1):
    if left and rank == 2**k - 2:
      last = [[next(powers)]]
    for each in sets:
      each.append(next(powers))
  choices = [[0., *(2.**-power for power in each)] for each in sets + last]
  sums = np.sort([sum(chosen) for chosen in itertools.product(*choices)])
  return np.float32(sums / sums[-1])


def _refuse(bits):
  raise EffjaxError(f'apot: bits must be a whole number from 2 to 8, got {bits!r}')


def _normalised(w: Float[Array, '*s']) -> Float[Array, '*s']:
  """Mean 0 and variance 1, in sums whose order no compiler changes."""
  flat = w.astype(jnp.float32).reshape(1, -1)
  centred = flat - ordered_sum(flat)[:, None] * (1 / flat.size)
  variance = ordered_sum(jnp.square(centred))[:, None] * (1 / flat.size)
  return (centred * jax.lax.rsqrt(variance + EPSILON)).reshape(w.shape)


def _nearest(ratio, magnitudes):
  """The level nearest to a ratio between -1 and 1, without a negative zero."""
  between = jnp.asarray((magnitudes[1:] + magnitudes[:-1]) / 2)
  found = jnp.asarray(magnitudes)[jnp.searchsorted(between, jnp.abs(ratio))]
  return jnp.where((ratio >= 0) | (found == 0), found, -found)
