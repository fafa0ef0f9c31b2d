"""AdaRound: for each weight, up or down is learned, so that the layer's outputs keep their values."""
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from effjax import ste
from effjax.errors import EffjaxError
from effjax.quantize.granularity import check_finite
from effjax.quantize.lsq import floored, initial_scale, largest_code
from effjax.reparam import Fact, Rule, Slots

LOW, HIGH = -.1, 1.1  # what the sigmoid is stretched to, so that it reaches 0 and 1


def adaround(bits: int = 4, *, per_channel: bool = True, channel_axis: int = -1) -> Rule:
  """`y = s clip(floor(w / s) + h(V), -q, q)`, `h(V) = clip(1.2 sigmoid(V) - .1, 0, 1)`; deployed: h above or below 1/2.

  Gradient: `dy/dV = s h'(V)` while the sum is within the codes and h within [0, 1], ends included, else 0. Train V
  alone, by `reconstruct` or in the joint step with `rounding_penalty` in its loss. V starts where y = w.

  Args:
    bits: 2 to 8; the codes are symmetric, q = 2^(bits-1) - 1.
    per_channel: one scale per entry of `channel_axis`; else one for the array.
    channel_axis: the output channels.

  Slots: theta is None, the weights do not train; phi = {'rounding': V, float32}; state = {'floor', 'scale'}.
  Facts: bits, and the scale (never below 2^-20). Runs on integers.

  Raises:
    EffjaxError: bits outside 2..8; an axis that is not there; weights that are not finite.

  Differs from the paper: symmetric codes; the scale per channel is that of `lsq`, of least squared error.

  Source: Nagel, Amjad, van Baalen, Louizos, Blankevoort, "Up or Down? Adaptive Rounding for Post-Training
  Quantization", ICML 2020, arXiv:2004.10568.

  >>> rule = adaround(3, per_channel=False)
  >>> slots = rule.init(jax.random.key(0), jnp.array([.9, .4]))
  >>> [[round(float(y), 3) for y in rule.apply(*slots, key)] for key in (None, jax.random.key(0))]
  [[0.9, 0.3], [0.9, 0.4]]
  """
  largest = largest_code(bits)

  def init(key, w):
    check_finite('adaround', w)
    scale = initial_scale(w, bits, per_channel=per_channel, channel_axis=channel_axis)
    ratio = w.astype(jnp.float32) * (1 / floored(scale))
    down = jnp.clip(jnp.floor(ratio), -largest, largest)
    part = (jnp.clip(ratio - down, 0., 1.) - LOW) * (1 / (HIGH - LOW))
    return Slots(None, {'rounding': jnp.log(part / (1 - part))}, {'floor': down.astype(w.dtype), 'scale': scale})

  def apply(theta, phi, state, key):
    up = rectified(phi['rounding'])
    up = (up > .5).astype(jnp.float32) if key is None else up
    end = jnp.float32(largest)
    code = ste.clip(state['floor'].astype(jnp.float32) + up, -end, end)
    return (code * floored(state['scale'])).astype(state['floor'].dtype)

  return Rule(init, apply, lambda slots, hard: Fact(bits=jnp.float32(bits), scale=floored(slots.state['scale'])))


def rectified(v: Float[Array, '*s']) -> Float[Array, '*s']:
  """`h(V) = clip(1.2 sigmoid(V) - .1, 0, 1)`, how far up each weight is rounded.

  >>> rectified(jnp.array([-9., 0., 9.]))
  Array([0. , 0.5, 1. ], dtype=float32)
  """
  return ste.clip(jax.nn.sigmoid(v) * (HIGH - LOW) + LOW, jnp.float32(0), jnp.float32(1))


def rounding_penalty(rounding: Float[Array, '*s'], beta: float | Float[Array, '']) -> Float[Array, '']:
  """`sum 1 - |2 h(V) - 1|^beta`: 0 once each h is 0 or 1. A large beta pulls only those near the ends, 2 all.

  >>> rounding_penalty(jnp.array([-9., 0., 9.]), 2.)
  Array(1., dtype=float32)
  """
  return jnp.sum(1 - jnp.abs(2 * rectified(rounding) - 1)**jnp.asarray(beta, jnp.float32))


def reconstruct(layer: Callable, w: Float[Array, '*s'], x: Float[Array, 'b ...'], key: jax.Array, *,
                rule: Rule | None = None, targets: Array | None = None, steps: int = 10000, examples: int = 32,
                learning_rate: float = 1e-2, weight: float | Float[Array, ''] = .01, warm_up: float = .2,
                betas: tuple[float, float] = (20., 2.)) -> Slots:
  """Slots of `adaround` for small `mean_b ||layer(w, x) - layer(y, x)||^2 + weight rounding_penalty(V, beta)`, by Adam.

  Args:
    layer: `layer(w, x)`, the activation behind it included if it is to count.
    w: its weight.
    x: its inputs, captured from the quantized network: the layers before it done already.
    key: of the batches.
    rule: `adaround(...)`; None is `adaround()`.
    targets: the float network's outputs; None: `layer(w, x)`.
    steps: of Adam; examples: in each step, drawn with replacement.
    weight: of the penalty, beside an error that is summed over outputs: raise it if weights stay undecided.
    warm_up: the part of the steps without penalty; then beta falls from `betas[0]` to `betas[1]`, by a cosine.

  Raises:
    EffjaxError: steps or examples below 1; targets that are not as many as the inputs.

  Source: as `adaround`, sections 3.2 and 3.3, with its steps.

  >>> w, x = jnp.array([[.4], [.4]]), jnp.array([[1., 1.], [2., 2.]])
  >>> slots = reconstruct(lambda w, x: x @ w, w, x, jax.random.key(0), rule=adaround(2), steps=20)
  >>> slots.phi['rounding'].shape
  (2, 1)
  """
  rule = rule or adaround()
  goal = layer(w, x) if targets is None else targets
  if steps < 1 or examples < 1 or len(goal) != len(x):
    raise EffjaxError(f'reconstruct: wanted steps and examples of at least 1 and one target for each input, got '
                      f'{steps}, {examples} and {len(goal)} targets for {len(x)} inputs')
  start, adam = rule.init(key, w), optax.adam(learning_rate)

  def loss(phi, chosen, time):
    error = layer(rule.apply(start.theta, phi, start.state, key), x[chosen]) - goal[chosen]
    after = jnp.maximum(time - warm_up, 0.) * (1 / (1 - warm_up))
    beta = betas[1] + (betas[0] - betas[1]) * .5 * (1 + jnp.cos(jnp.pi * after))
    penalty = jnp.where(time >= warm_up, weight * rounding_penalty(phi['rounding'], beta), 0.)
    return jnp.sum(error**2) * (1 / examples) + penalty

  def step(carry, i):
    phi, memory = carry
    chosen = jax.random.randint(jax.random.fold_in(key, i), (examples,), 0, len(x))
    slope = jax.grad(loss)(phi, chosen, i.astype(jnp.float32) * (1 / steps))
    with jax.numpy_dtype_promotion('standard'):  # optax raises a number to the power of a step
      moves, memory = adam.update(slope, memory)
    return (optax.apply_updates(phi, moves), memory), None

  phi = jax.lax.scan(step, (start.phi, adam.init(start.phi)), jnp.arange(steps))[0][0]
  return start._replace(phi=phi)
