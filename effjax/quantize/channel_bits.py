"""A bit width for each output channel, none at all among them."""
import functools

import jax.numpy as jnp

from effjax import relax, schedule
from effjax.errors import EffjaxError
from effjax.quantize.granularity import check_finite
from effjax.quantize.lsq import floored, initial_scale, quantize
from effjax.reparam import Fact, Rule, Slots
from effjax.schedule import Schedule


def channel_bits(bits: tuple[int, ...] = (0, 2, 4, 8), *, temperature: float | Schedule = 1.,
                 channel_axis: int = -1) -> Rule:
  """Each channel a mixture of its quantizations: `y_c = sum_b softmax(a_c / T)_b lsq_b(w_c)`, `lsq_0 = 0`.

  With `key=None` the width of the largest logit of each channel alone, exactly; of equals the widest, so
  that nothing is removed before something was learnt. Gradient: autodiff's through the sum, LSQ's through each term.

  Args:
    bits: widths to choose from, two or more different ones of 0 and 2..8; 0 removes the weights of the channel.
    temperature: T, a number or a schedule of the step.
    channel_axis: the output channels.

  Slots: theta = w; phi = {'logits': [channels, k], 'scale': [widths above 0, ...]}, float32; state = {'step'}.
    Decisions: the logits.
  Facts: soft, the widths and the mean over channels of the probability of each; hard, the widest of the chosen bits,
    in which kernels store all channels, and each channel's own scale. Runs on integers.

  Raises:
    EffjaxError: fewer than two widths, a width twice or out of range; an axis that is not there; weights that are not
      finite.

  Differs from the paper: LSQ's learned scales; one temperature's softmax, without the paper's sampling; activations
  and the sorting of channels into layers of one width each are not in it, so what is gained where kernels want one
  width for all is what 0 bits remove, and only `cost.bitops` sees the rest. Channels that should leave the network are
  gated by `effjax.over(channels, sparsify.hard_concrete())`.

  Source: Motetti, Risso, Burrello, Macii, Poncino, Jahier Pagliari, "Joint Pruning and Channel-wise Mixed-Precision
  Quantization for Efficient Deep Neural Networks", 2024, arXiv:2407.01054.

  >>> import jax
  >>> rule = channel_bits((0, 8))
  >>> slots = rule.init(jax.random.key(0), jnp.ones((3, 2)))
  >>> slots = slots._replace(phi=slots.phi | {'logits': jnp.array([[0., 1.], [1., 0.]])})
  >>> rule.apply(*slots, None)[0], float(rule.facts(slots, True).bits)
  (Array([1., 0.], dtype=float32), 8.0)
  """
  widths = _checked(bits)

  def init(key, w):
    check_finite('channel_bits', w)
    scales = [initial_scale(w, b, channel_axis=channel_axis) for b in widths if b]
    logits = jnp.zeros((w.shape[channel_axis], len(widths)), jnp.float32)
    return Slots(w, {'logits': logits, 'scale': jnp.stack(scales)}, {'step': schedule.start()})

  def each(f, phi):
    """`f(scale, width)` of each width, 0 bits as None."""
    scales = iter(phi['scale'])
    return [f(next(scales), b) if b else None for b in widths]

  def along(x, like):
    """A vector of channels as an array that broadcasts to `like`."""
    return jnp.expand_dims(x, [axis for axis in range(like.ndim) if axis != channel_axis % like.ndim])

  def select(phi, like, parts, nothing):
    best = along(_chosen(phi['logits'], widths), like)
    return functools.reduce(lambda made, i: jnp.where(best == i, nothing if parts[i] is None else parts[i], made),
                            range(len(widths)), nothing)

  def probabilities(phi, state):
    return relax.softmax(phi['logits'], schedule.value(temperature, state['step']))

  def apply(w, phi, state, key):
    grids = each(lambda scale, b: quantize(w, scale, b), phi)
    if key is None:
      return select(phi, w, grids, jnp.zeros_like(w))
    p = probabilities(phi, state).astype(w.dtype)
    return functools.reduce(jnp.add, [along(p[:, i], w) * grid for i, grid in enumerate(grids) if grid is not None])

  def facts(slots, hard):
    every, phi = jnp.asarray(widths, jnp.float32), slots.phi
    if not hard:
      return Fact(bits=every, choice=jnp.mean(probabilities(phi, slots.state), 0))
    scales = each(lambda scale, b: floored(scale), phi)
    return Fact(bits=jnp.max(every[_chosen(phi['logits'], widths)]),
                scale=select(phi, slots.theta, scales, jnp.ones_like(phi['scale'][0])))

  return Rule(init, apply, facts, update=lambda slots, gradient: {'step': schedule.advance(slots.state['step'])},
              decisions=frozenset({'logits'}))


def _chosen(logits, widths):
  """The index of the largest logit of each channel, of equals that of the widest."""
  largest = logits == jnp.max(logits, -1, keepdims=True)
  return jnp.argmax(jnp.where(largest, jnp.asarray(widths, jnp.int32), jnp.full_like(logits, -1, jnp.int32)), -1)


def _checked(bits):
  widths = tuple(bits)
  if len(set(widths)) < 2 or len(set(widths)) < len(widths) or any(b not in (0, *range(2, 9)) for b in widths):
    raise EffjaxError(f'channel_bits: wants two or more different widths of 0 and 2 to 8, got {bits!r}: '
                      'for a single width use quantize.lsq')
  return widths
