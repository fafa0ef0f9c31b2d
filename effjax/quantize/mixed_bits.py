"""EdMIPS: a softmax over bit widths per layer."""
import functools

import jax
import jax.numpy as jnp

from effjax import relax, schedule
from effjax.errors import EffjaxError
from effjax.quantize.granularity import check_finite
from effjax.quantize.lsq import floored, initial_scale, quantize
from effjax.reparam import Fact, Rule, Slots
from effjax.schedule import Schedule


def mixed_bits(bits: tuple[int, ...] = (4, 8), *, temperature: float | Schedule = 1.,
               per_channel: bool = True, channel_axis: int = -1) -> Rule:
  """One weight that is a mixture of its quantizations: `y = sum_b softmax(a / T)_b lsq_b(w)`.

  Convolution is linear, so one convolution with the aggregated weight is the sum of the convolutions with each.
  With `key=None` the width of the largest logit alone, exactly (the first of equals). Gradient: autodiff's through
  the sum, LSQ's through each term.

  Args:
    bits: widths to choose from, two or more different ones in 2..8.
    temperature: T, a number or a schedule of the step.
    per_channel, channel_axis: as in `lsq`.

  Slots: theta = w; phi = {'logits': [k], 'scale': [k, ...]}, float32; state = {'step'}. Decisions: the logits.
  Facts: soft, the widths and the probability of each; hard, the bits of the largest logit and their scale.

  Raises:
    EffjaxError: fewer than two widths, a width twice, one outside 2..8; weights that are not finite.

  Differs from the paper: LSQ's learned scales instead of its fixed step sizes; weights only, here.

  Source: Cai, Vasconcelos, "Rethinking Differentiable Search for Mixed-Precision Neural Networks" (EdMIPS), CVPR 2020,
  arXiv:2004.05795.

  >>> rule = mixed_bits((2, 8))
  >>> slots = rule.init(jax.random.key(0), jnp.ones((3, 2)))
  >>> rule.facts(slots, False)[::3], float(rule.facts(slots, True).bits)
  ((Array([2., 8.], dtype=float32), Array([0.5, 0.5], dtype=float32)), 2.0)
  """
  widths = _checked(bits)

  def init(key, w):
    check_finite('mixed_bits', w)
    scales = [initial_scale(w, b, per_channel=per_channel, channel_axis=channel_axis) for b in widths]
    logits = jnp.zeros(len(widths), jnp.float32)
    return Slots(w, {'logits': logits, 'scale': jnp.stack(scales)}, {'step': schedule.start()})

  def probabilities(phi, state):
    return relax.softmax(phi['logits'], schedule.value(temperature, state['step']))

  def apply(w, phi, state, key):
    grids = [quantize(w, scale, b) for scale, b in zip(phi['scale'], widths, strict=True)]
    if key is None:
      return jax.lax.select_n(jnp.argmax(phi['logits']).astype(jnp.int32), *grids)
    p = probabilities(phi, state).astype(w.dtype)
    return functools.reduce(jnp.add, [p[i] * grid for i, grid in enumerate(grids)])

  def facts(slots, hard):
    each = jnp.asarray(widths, jnp.float32)
    if not hard:
      return Fact(bits=each, choice=probabilities(slots.phi, slots.state))
    best = jnp.argmax(slots.phi['logits'])
    return Fact(bits=each[best], scale=floored(slots.phi['scale'][best]))

  return Rule(init, apply, facts, update=lambda slots, gradient: {'step': schedule.advance(slots.state['step'])},
              decisions=frozenset({'logits'}))


def _checked(bits):
  widths = tuple(bits)
  if len(set(widths)) < 2 or len(set(widths)) < len(widths) or any(b not in range(2, 9) for b in widths):
    raise EffjaxError(f'mixed_bits: wants two or more different widths from 2 to 8, got {bits!r}: '
                      'for a single width use quantize.lsq')
  return widths
