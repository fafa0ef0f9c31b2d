"""Fixed-point numbers with few bits, rounded to nearest or at random: for weights, and for the weights of a step."""
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from effjax import ste
from effjax.errors import EffjaxError
from effjax.quantize.draws import drawn, draws
from effjax.quantize.granularity import check_finite
from effjax.reparam import Fact, Rule, Slots

WIDEST = 24  # bits of a number that float32 holds exactly


def fixed_point(integer_bits: int, fraction_bits: int, *, stochastic: bool = False) -> Rule:
  """Weights in `<IL, FL>`: multiples of `e = 2^-FL` from `-2^(IL-1)` to `2^(IL-1) - e`, see `to_fixed_point`.

  Gradient: 1 inside that range, ends included, else 0.

  Args:
    integer_bits: IL from 1 on, the sign counted.
    fraction_bits: FL from 0 on; both together 2 to 24.
    stochastic: round at random while training, anew for each key; to nearest where deployed.

  Slots: theta = w; no phi, no state.
  Facts: IL + FL bits, the scale e. Runs on integers up to 8 bits, unless a weight is at `-2^(IL-1)`, whose code
    `-2^(bits-1)` integer kernels leave out.

  Raises:
    EffjaxError: other bits; weights that are not finite.

  Differs from the paper: there no real weights are kept, see `fixed_point_weights`.

  Source: Gupta, Agrawal, Gopalakrishnan, Narayanan, "Deep Learning with Limited Numerical Precision", ICML 2015,
  arXiv:1502.02551, survey [33].

  >>> rule = fixed_point(2, 2)
  >>> rule.apply(*rule.init(jax.random.key(0), jnp.array([.3, -.9, 7.])), None)
  Array([ 0.25, -1.  ,  1.75], dtype=float32)
  """
  low, high = _range('fixed_point', integer_bits, fraction_bits)

  def init(key, w):
    check_finite('fixed_point', w)
    return Slots(w, {}, {})

  def apply(w, phi, state, key):
    y = to_fixed_point(w, integer_bits, fraction_bits, key if stochastic else None)
    wide = w.astype(jnp.float32)
    return ste.surrogate(y, w, ((wide >= low) & (wide <= high)).astype(w.dtype))

  return Rule(init, apply, lambda slots, hard: Fact(bits=jnp.float32(integer_bits + fraction_bits),
                                                    scale=jnp.float32(2.**-fraction_bits)))


def to_fixed_point(x: Float[Array, '*s'], integer_bits: int, fraction_bits: int,
                   key: Key[Array, ''] | None = None) -> Float[Array, '*s']:
  """`e round(x / e)`, `e = 2^-FL`, saturated to `-2^(IL-1)` and `2^(IL-1) - e`. Not differentiable: see `fixed_point`.

  Without a key to nearest, ties to even. With one at random: `e (floor(x / e) + 1)` with probability `f`, the fraction
  of `x / e`, else `e floor(x / e)`. So the mean is x inside the range, and the variance `f (1 - f) e^2`.

  Args:
    x: weights, activations, gradients or updates; sum in float32 what is multiplied, and round once.
    integer_bits, fraction_bits: as of `fixed_point`.
    key: a new one for every array and step.

  Raises:
    EffjaxError: other bits.

  >>> to_fixed_point(jnp.array([.3, 9., -9.]), 3, 2)
  Array([ 0.25,  3.75, -4.  ], dtype=float32)
  >>> to_fixed_point(jnp.full(6, .3), 3, 2, jax.random.key(0))
  Array([0.25, 0.25, 0.25, 0.25, 0.25, 0.5 ], dtype=float32)
  """
  low, high = _range('to_fixed_point', integer_bits, fraction_bits)
  ratio = jnp.clip(x.astype(jnp.float32), low, high) * 2.**fraction_bits
  if key is None:
    code = jnp.round(ratio)
  else:
    below = jnp.floor(ratio)
    code = below + (jax.random.uniform(key, x.shape, jnp.float32) < ratio - below).astype(jnp.float32)
  code = jnp.where(code == 0, jnp.zeros_like(code), code)  # no negative zero: an integer has none
  return (code * 2.**-fraction_bits).astype(x.dtype)


def fixed_point_weights(integer_bits: int, fraction_bits: int,
                        key: Key[Array, ''] | None = None) -> optax.GradientTransformation:
  """The update that takes every weight w to `to_fixed_point(w + update)`. The last part of an `optax.chain`.

  No other copy of the weights is kept. Rounding to nearest, an update below `e / 2` is lost for ever, which ends
  training at few bits; with a key it is rounded at random and kept on average.

  Args:
    integer_bits, fraction_bits: as of `fixed_point`.
    key: to round at random; each leaf and step draws with one of its own. None rounds to nearest.

  State: the key and the step, or nothing.

  Start with weights in fixed point, `to_fixed_point` of each: from there every update leads exactly to such weights,
  from others only up to the rounding of float32.

  Raises:
    EffjaxError: other bits; `update` without the parameters.

  Source: as of `fixed_point`.

  >>> tx = optax.chain(optax.sgd(1.), fixed_point_weights(2, 4))
  >>> w = jnp.array([.5, .5])
  >>> updates, _ = tx.update(jnp.array([.2, .02]), tx.init(w), w)
  >>> optax.apply_updates(w, updates)
  Array([0.3125, 0.5   ], dtype=float32)
  """
  _range('fixed_point_weights', integer_bits, fraction_bits)
  move = lambda key, update, w: to_fixed_point(w + update, integer_bits, fraction_bits, key) - w

  def update(updates, state, params=None):
    if params is None:
      raise EffjaxError('fixed_point_weights: the update needs the weights, got none: call '
                        'tx.update(gradients, state, params)')
    if key is None:
      return jax.tree.map(lambda update, w: move(None, update, w), updates, params), state
    return drawn(state, move, updates, params)

  return optax.GradientTransformation(lambda params: optax.EmptyState() if key is None else draws(key), update)


def _range(who, integer_bits, fraction_bits):
  """The smallest and the largest number."""
  whole = isinstance(integer_bits, int) and isinstance(fraction_bits, int)
  if not (whole and integer_bits >= 1 and fraction_bits >= 0 and 2 <= integer_bits + fraction_bits <= WIDEST):
    raise EffjaxError(f'{who}: wanted integer_bits from 1 and fraction_bits from 0 on, together 2 to {WIDEST}, got '
                      f'{integer_bits!r} and {fraction_bits!r}')
  return -2.**(integer_bits - 1), 2.**(integer_bits - 1) - 2.**-fraction_bits
