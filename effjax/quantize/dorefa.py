"""DoReFa: weights, activations and gradients in few bits."""
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax import ste
from effjax.errors import EffjaxError
from effjax.quantize.exact_scale import by_group, ordered_sum
from effjax.quantize.granularity import check_finite
from effjax.quantize.lsq import floored
from effjax.quantize.lsq_plus import ActivationQuantizer, fake_quantize
from effjax.reparam import Fact, Rule, Slots


def dorefa(bits: int = 4) -> Rule:
  """`y = 2 round(n (v / 2 + 1/2)) / n - 1`, `v = tanh(w) / max|tanh(w)|`, `n = 2^bits - 1`: in [-1, 1], without a zero.

  1 bit: `y = mean|w| sign(w)`, +1 at 0. Gradient: `dy/dv = 1`, and autodiff's through tanh and the maximum; of 1 bit
  `dy/dw = 1`, the mean a constant.

  The 2^bits values are odd numbers `2r - n` over n. Integer kernels multiply by these: a code has one bit more than
  the method counts, so 3 bits are int4 and 7 bits int8. 8 bits have 9-bit codes, which no kernel takes: for studies.

  Args:
    bits: 1 to 8. The scale of all but 1 bit is that of the method, not of the weights: put BatchNorm behind it.

  Slots: theta = w; no phi, no state.
  Facts: `bits + 1` (1 for 1 bit), and the scale: 1/n, or mean|w| (never below 2^-20). Runs on integers up to 7 bits.

  Raises:
    EffjaxError: bits outside 1..8; weights that are not finite.

  Differs from the paper: weights of zeros become the two values next to 0 instead of 0/0.

  Source: Zhou, Wu, Ni, Zhou, Wen, Zou, "DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low
  Bitwidth Gradients", 2016, arXiv:1606.06160.

  >>> rule = dorefa(2)
  >>> rule.apply(*rule.init(jax.random.key(0), jnp.array([-1., .1, .3, 1.])), None) * 3
  Array([-3.,  1.,  1.,  3.], dtype=float32)
  """
  steps = 2**_checked('dorefa', bits) - 1
  mean = lambda w: floored(by_group('dorefa', lambda v: ordered_sum(v) * (1 / v.shape[1]), w, False, -1))

  def init(key, w):
    check_finite('dorefa', w)
    return Slots(w, {}, {})

  def apply(w, phi, state, key):
    if bits == 1:
      code = jnp.where(w >= 0, jnp.ones_like(w), -jnp.ones_like(w)).astype(jnp.float32)
      return ste.surrogate((code * jax.lax.stop_gradient(mean(w))).astype(w.dtype), w, jnp.ones_like(w))
    v = _normalised(w.astype(jnp.float32))
    code = 2 * jnp.round((v * .5 + .5) * steps) - steps
    return ste.surrogate(code * (1 / steps), v, jnp.ones_like(v)).astype(w.dtype)

  def facts(slots, hard):
    scale = mean(slots.theta) if bits == 1 else jnp.float32(1 / steps)
    return Fact(bits=jnp.float32(1 if bits == 1 else bits + 1), scale=scale)

  return Rule(init, apply, facts)


def dorefa_activation(bits: int = 8) -> ActivationQuantizer:
  """`y = round(n clip(x, 0, 1)) / n`, `n = 2^bits - 1`. Nothing to train. Gradient: `dy/dx = [0 <= x <= 1]`.

  The range is fixed, so the network has to be trained with it; its facts are the scale 1/n and the zero point
  -2^(bits-1).

  Args:
    bits: 1 to 8; files for the device hold 8.

  Raises:
    EffjaxError: other bits.

  Source: as `dorefa`, section 2.4.

  >>> dorefa_activation(2).apply({}, jnp.array([-1., .3, .6, 2.])) * 3
  Array([0., 1., 2., 3.], dtype=float32)
  """
  low, high = -2**(_checked('dorefa_activation', bits) - 1), 2**(bits - 1) - 1
  scale, zero_point = lambda: jnp.float32(1 / (2**bits - 1)), lambda: jnp.int32(low)

  def apply(phi, x):
    y = fake_quantize(x.astype(jnp.float32), scale(), zero_point(), low, high).astype(x.dtype)
    return ste.surrogate(y, x, ((x >= 0) & (x <= 1)).astype(x.dtype))

  return ActivationQuantizer(init=lambda samples: {}, apply=apply, facts=lambda phi: (scale(), zero_point()), bits=bits)


def dorefa_gradient(bits: int = 8) -> Callable[[Float[Array, 'n *s'], jax.Array], Float[Array, 'n *s']]:
  """`f(x, key) = x`, whose cotangent g is rounded to 2^bits values with an expectation of g (equation 12).

  `2 m (round(n (g / 2m + 1/2) + u) / n - 1/2)` with `n = 2^bits - 1`, u uniform in [-1/2, 1/2) and m the largest
  `|g|` of each example (axis 0 counts examples), so that the error of an entry is less than `2 m / n`. An example of
  zeros keeps them; a zero among others becomes one of the two values next to 0.

  Put it behind a layer: `x = f(layer(x), key)`, a key of its own for each place and step. Reverse mode only.

  Args:
    bits: 1 to 16.

  Raises:
    EffjaxError: other bits; a scalar, which has no axis of examples.

  Differs from the paper: nothing is stored in the few bits; the values are what a device would hold.

  Source: as `dorefa`, section 2.5.

  >>> pull = jax.vjp(lambda x: dorefa_gradient(2)(x, jax.random.key(1)), jnp.ones((1, 4)))[1]
  >>> pull(jnp.array([[3., -3., 0., .9]]))[0]
  Array([[ 3., -3., -1.,  1.]], dtype=float32)
  """
  steps = 2**_checked('dorefa_gradient', bits, 16) - 1

  def call(x, key):
    if not x.ndim:
      raise EffjaxError('dorefa_gradient: wants an array whose axis 0 counts examples, got a scalar: put it before '
                        'the mean of the loss')
    return _identity(x, key, steps)

  return call


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _identity(x, key, steps):
  return x


def _round_cotangent(steps, key, g):
  wide = g.astype(jnp.float32)
  top = jnp.max(jnp.abs(wide), tuple(range(1, g.ndim)), keepdims=True)
  inverse = jnp.where(top > 0, .5 / jnp.where(top > 0, top, jnp.ones_like(top)), jnp.zeros_like(top))
  dither = jax.random.uniform(key, g.shape, jnp.float32, -.5, .5)
  code = jnp.clip(jnp.round((wide * inverse + .5) * steps + dither), 0, steps)
  return ((2 * code - steps) * (top * (1 / steps))).astype(g.dtype), None


_identity.defvjp(lambda x, key, steps: (x, key), _round_cotangent)


def _normalised(w):
  """`tanh(w) / max|tanh(w)|`; zeros stay."""
  t = jnp.tanh(w)
  top = jnp.max(jnp.abs(t))
  return t * (1 / jnp.where(top > 0, top, jnp.ones_like(top)))


def _checked(who, bits, most=8):
  if not (isinstance(bits, int) and 1 <= bits <= most):
    raise EffjaxError(f'{who}: bits must be a whole number from 1 to {most}, got {bits!r}')
  return bits
