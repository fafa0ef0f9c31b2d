"""Bayesian Bits: widths of 2, 4 and 8 bits as nested residuals, each behind a gate, the first of which prunes."""
import functools
import math

import jax
import jax.numpy as jnp

from effjax import relax
from effjax.errors import EffjaxError
from effjax.quantize.granularity import check_finite, shared_axes
from effjax.quantize.lsq import FLOOR, floored, quantize
from effjax.reparam import Fact, Rule, Slots

WIDTHS = (2, 4, 8)
STRETCH = dict(temperature=2 / 3, low=-.1, high=1.1)
THRESHOLD = .34  # a gate whose P(z = 0) is less is open


def bayesian_bits(*, largest_bits: int = 8, prune: str | None = 'channel', initial_open: float = .9,
                  per_channel: bool = True, channel_axis: int = -1) -> Rule:
  """`y = z2 (x2 + z4 (e4 + z8 e8))`, `e4 = x4 - x2`, `e8 = x8 - x4`: gates open one residual after the other.

  `x_b = s_b clip(round(w / s_b), -q, q)`, `q = 2^(b-1) - 1`, `s_b = 2 r / (2^b - 1)` of a learned range r: as
  `s_b = s_2b (2^b + 1)`, each grid lies in the next, and e is the residual rounded to it. The gates are hard concrete,
  one draw per step (see `relax.hard_concrete`); with `key=None` one is open where `P(z = 0) < 0.34`, and a closed one
  closes all behind it: exactly x2, x4, x8 or 0. Gradient: autodiff's through the gates, so none of a gate whose draw is
  0 or 1, which comes for a gate of its own (`prune='array'`) about every second step; LSQ's through each grid.

  The loss has to pay for bits: with `cost.bitops` the penalty is the paper's `sum_b b prod P(z > 0)`.

  Args:
    largest_bits: 4 or 8, the last width.
    prune: 'channel' has a gate z2 for each output channel, 'array' one for all, None no such gate.
    initial_open: P(z > 0) of every gate at the start, strictly between 0.66 and 1.
    per_channel, channel_axis: of the range, as in `lsq`; the gates of channels are on `channel_axis` too.

  Slots: theta = w; phi = {'range', 'prune' (unless None): log-alpha of z2, 'residual': log-alphas of z4 and z8},
    float32; no state. Decisions: prune and residual.
  Facts: soft, the widths 0 (unless prune is None), 2, 4, 8, and the probability of each, of channels their mean; hard,
    the deployed bits of the channels that are left (0 where none is) and their scale. Runs on integers.

  Raises:
    EffjaxError: options out of range; an axis that is not there; weights that are not finite.

  Differs from the paper: ranges per channel, starting at the largest weight; LSQ's gradients of them; gates start less
  open than there, where a clip that saturates hides the gradient of nearly all; no 16 and 32 bits, which no integer
  kernel multiplies by; weights only, here.

  Source: van Baalen, Louizos, Nagel, Amjad, Wang, Blankevoort, Welling, "Bayesian Bits: Unifying Quantization and
  Pruning", NeurIPS 2020, arXiv:2005.07093.

  >>> rule = bayesian_bits()
  >>> slots = rule.init(jax.random.key(0), jnp.ones((3, 2)))
  >>> fact = rule.facts(slots, False)
  >>> fact.bits, (fact.choice * 1000).round(), float(rule.facts(slots, True).bits)
  (Array([0., 2., 4., 8.], dtype=float32), Array([100.,  90.,  81., 729.], dtype=float32), 8.0)
  """
  widths = _checked(largest_bits, prune, initial_open)
  start = math.log(initial_open / (1 - initial_open)) + STRETCH['temperature'] * math.log(.1 / 1.1)
  opened = lambda a: relax.hard_concrete_open(a, **STRETCH)
  is_open = lambda a: opened(a) > 1 - THRESHOLD

  def init(key, w):
    check_finite('bayesian_bits', w)
    top = jnp.max(jnp.abs(w.astype(jnp.float32)), shared_axes('bayesian_bits', w.shape, per_channel, channel_axis),
                  keepdims=True)
    phi = {'range': jnp.maximum(top, 2**(largest_bits - 1) * FLOOR),
           'residual': jnp.full(len(widths) - 1, start, jnp.float32)}
    return Slots(w, phi if prune is None else phi | {'prune': _gates(w, prune, channel_axis, start)}, {})

  def apply(w, phi, state, key):
    grids = [quantize(w, _scale(phi['range'], b), b) for b in widths]
    if key is None:
      chosen = jax.lax.select_n(_depth(phi, is_open), *grids)
      return jnp.where(is_open(phi['prune']), chosen, jnp.zeros_like(chosen)) if 'prune' in phi else chosen
    draw = lambda name, i: relax.hard_concrete(jax.random.fold_in(key, i), phi[name], **STRETCH).astype(w.dtype)
    z = draw('residual', 0)
    errors = [(z[i], fine - coarse) for i, (coarse, fine) in enumerate(zip(grids, grids[1:]))]
    inner = functools.reduce(lambda behind, gated: gated[0] * (gated[1] + behind), errors[::-1], jnp.zeros_like(w))
    return (grids[0] + inner) * draw('prune', 1) if 'prune' in phi else grids[0] + inner

  def facts(slots, hard):
    phi = slots.phi
    if hard:
      bits = jnp.asarray(widths, jnp.float32)[_depth(phi, is_open)]
      some = jnp.any(is_open(phi['prune'])) if 'prune' in phi else jnp.bool_(True)
      scales = jnp.stack([floored(_scale(phi['range'], b)) for b in widths])
      return Fact(bits=jnp.where(some, bits, jnp.zeros_like(bits)), scale=scales[_depth(phi, is_open)])
    first = jnp.mean(opened(phi['prune'])) if 'prune' in phi else jnp.float32(1)
    reached = jnp.concatenate([first[None], first * jnp.cumprod(opened(phi['residual'])), jnp.zeros(1)])
    choice = reached[:-1] - reached[1:]
    if 'prune' not in phi:
      return Fact(bits=jnp.asarray(widths, jnp.float32), choice=choice)
    return Fact(bits=jnp.asarray((0, *widths), jnp.float32), choice=jnp.concatenate([(1 - first)[None], choice]))

  return Rule(init, apply, facts, decisions=frozenset({'residual', 'prune'}))


def _scale(top, bits):
  return top * (2 / (2**bits - 1))


def _gates(w, prune, channel_axis, start):
  """The log-alphas of z2, in a shape that broadcasts to w."""
  axes = shared_axes('bayesian_bits', w.shape, prune == 'channel', channel_axis)
  return jnp.full([1 if axis in axes else size for axis, size in enumerate(w.shape)], start, jnp.float32)


def _depth(phi, is_open):
  """How many residuals are added: the gates that are open before the first closed one."""
  return jnp.sum(jnp.cumprod(is_open(phi['residual']).astype(jnp.int32)), dtype=jnp.int32)


def _checked(largest_bits, prune, initial_open):
  if largest_bits not in (4, 8):
    raise EffjaxError(f'bayesian_bits: largest_bits must be 4 or 8, got {largest_bits!r}: int8 kernels hold no more')
  if prune not in ('channel', 'array', None):
    raise EffjaxError(f"bayesian_bits: prune must be 'channel', 'array' or None, got {prune!r}")
  if not 1 - THRESHOLD < initial_open < 1:
    raise EffjaxError(f'bayesian_bits: initial_open must be strictly between {1 - THRESHOLD:.2f} and 1, got '
                      f'{initial_open}: gates start open')
  return WIDTHS[:WIDTHS.index(largest_bits) + 1]
