"""Extremely low bits by ADMM: weights train in the open, pulled towards codes times a scale that follow them."""
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax import schedule, tree
from effjax.errors import EffjaxError
from effjax.quantize.exact_scale import bits_of, by_group, check_codes, exact_scale, nearest_codes
from effjax.quantize.granularity import check_finite
from effjax.quantize.lsq import floored
from effjax.reparam import Fact, Rule, Slots
from effjax.tree import Path, PyTree


def admm(codes: Sequence = (0, 1), *, every_steps: int = 1, per_channel: bool = False, channel_axis: int = -1) -> Rule:
  """`min f(W)` with `W = G`, G codes times a scale: `W` trains on `f(W) + rho/2 ||W - G + U||^2`, scaled form.

  Gradient: 1, the model trains with W itself. Add `admm_penalty` to its loss. Every so many steps, `update` does

      G = a q nearest to W + U, both a and q (`exact_scale`, exact)        U = U + W - G

  and G is what is deployed. G starts nearest to W, U at 0. Codes are no convex set, so G need not settle, least of all
  with a small rho: keep the best one on held-out data, or let rho grow.

  Args:
    codes: magnitudes, each with both signs: (1,) binary, (0, 1) ternary, (0, 1, 2), (0, 1, 2, 4) ...
    every_steps: of training between two updates; each is to come near the minimum by W.
    per_channel: one a per entry of `channel_axis`; else one for the array, as in the paper.
    channel_axis: the output channels.

  Slots: theta = W; no phi; state = {'projected': G, 'dual': U, 'scale': a, 'step'}.
  Facts: the bits of an integer that holds the codes, the scale a (never below 2^-20). Runs on integers.

  Raises:
    EffjaxError: codes that are not ascending whole numbers from 0 or 1 on; `every_steps` below 1; an axis that is not
      there; weights that are not finite.

  Differs from the paper: a and q are the best pair, where the paper alternates between them and may stop early; any
  optimizer does the step by W, the paper's is extragradient; powers of two are counted as int4 stores them (4 bits up
  to code 4, where the paper counts 3). In the joint step `update` sees the weights before the step, so G trails by one.

  Source: Leng, Dou, Li, Zhu, Jin, "Extremely Low Bit Neural Network: Squeeze the Last Bit Out with ADMM", AAAI 2018,
  arXiv:1707.09870, survey [38].

  >>> rule = admm((0, 1, 2))
  >>> rule.apply(*rule.init(jax.random.key(0), jnp.array([1., -.5, .1])), None)
  Array([ 1. , -0.5,  0. ], dtype=float32)
  """
  codes = check_codes('admm', codes)
  if not (isinstance(every_steps, int) and every_steps >= 1):
    raise EffjaxError(f'admm: every_steps must be a whole number from 1 on, got {every_steps!r}')

  def project(v, dtype):
    scale = floored(by_group('admm', lambda rows: exact_scale(rows, codes), v, per_channel, channel_axis))
    return {'projected': (nearest_codes(v, scale, codes) * scale).astype(dtype), 'scale': scale}

  def init(key, w):
    check_finite('admm', w)
    return Slots(w, {}, project(w, w.dtype) | {'dual': jnp.zeros(w.shape, jnp.float32), 'step': schedule.start()})

  def update(slots, gradient):
    w, state = slots.theta.astype(jnp.float32), slots.state | {'step': schedule.advance(slots.state['step'])}

    def move():
      new = project(w + state['dual'], slots.theta.dtype)
      return state | new | {'dual': state['dual'] + w - new['projected'].astype(jnp.float32)}

    return jax.lax.cond(state['step'] % every_steps == 0, move, lambda: state)

  return Rule(init, lambda w, phi, state, key: state['projected'] if key is None else w,
              lambda slots, hard: Fact(bits=jnp.float32(bits_of(codes)), scale=slots.state['scale']), update)


def admm_penalty(weights: PyTree, memory: dict[Path, PyTree], rho: float | Float[Array, '']) -> Float[Array, '']:
  """`sum rho/2 ||W - G + U||^2` over the arrays under `admm`; gradient `rho (W - G + U)`; float32.

  In the joint step, whose terms see outputs and the batch: hand the weights out of `forward`, and the memory in with
  the batch, inside of what is compiled: `lambda state, batch: step(state, batch | {'memory': state.slots.state})`.

  Args:
    weights: the tree that the model is given.
    memory: the state of `reparam.at(where, admm())`, by path.
    rho: 0 trains in the open; a large one freezes the first projection.

  Raises:
    EffjaxError: the memory has paths that the weights lack.

  >>> state = {'projected': jnp.ones(2), 'dual': jnp.zeros(2)}
  >>> admm_penalty({'w': jnp.array([3., 1.])}, {'w': state}, .5)
  Array(1., dtype=float32)
  """
  found = tree.leaves(weights)
  if strange := sorted(set(memory) - set(found)):
    raise EffjaxError(f'admm_penalty: the memory has {strange}, which the weights lack: wanted some of {sorted(found)}')
  off = lambda w, state: w.astype(jnp.float32) - state['projected'].astype(jnp.float32) + state['dual']
  parts = [jnp.sum(jnp.square(off(found[path], state))) for path, state in memory.items()]
  return sum(parts, jnp.float32(0)) * (jnp.asarray(rho, jnp.float32) * .5)
