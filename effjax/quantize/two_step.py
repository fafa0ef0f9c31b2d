"""TSQ: sparse codes for activations first, then ternary weights that reproduce them."""
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax import ste
from effjax.errors import EffjaxError
from effjax.quantize.coordinate_codes import coordinate_codes
from effjax.quantize.lsq import FLOOR
from effjax.quantize.lsq_plus import ActivationQuantizer, lsq_plus

_STARTS = tuple(np.geomspace(.02, 1., 32))  # parts of the largest sample that the search for a step starts from


def sparse_codes(bits: int = 2, *, dead_zone: float = .5) -> ActivationQuantizer:
  """After ReLU: 0 up to `dead_zone * s`, else `s clip(round(x / s), 1, 2^bits - 1)`; elsewhere `lsq_plus(bits)`.

  Gradient: `d/dx = 1` where `dead_zone * s < x <= (2^bits - 1) s`, else 0; none by the step s, which is fitted to the
  samples: `s = x.c / c.c` for the codes c of the s before it, repeated, from 32 starts.

  `phi = {'scale'}`.

  Args:
    bits: 2 to 8. (Of values with both signs, `lsq_plus` has no fewer.)
    dead_zone: of a step, 0 to 1. 0.5 is rounding to nearest, which a device does; others are refused by `facts`.

  Raises:
    EffjaxError: other bits; a dead zone outside [0, 1].

  Differs from the paper: its threshold is chosen for a sparsity; here it is a part of the step.

  Source: Wang, Hu, Zhang, Zhang, Liu, Cheng, "Two-Step Quantization for Low-bit Neural Networks", CVPR 2018,
  survey [40].

  >>> quantizer = sparse_codes(2, dead_zone=.8).from_zero()
  >>> quantizer.apply({'scale': jnp.float32(1.)}, jnp.array([-.3, .7, .9, 2.2, 9.]))
  Array([0., 0., 1., 2., 3.], dtype=float32)
  """
  if not 0 <= dead_zone <= 1:
    raise EffjaxError(f'sparse_codes: dead_zone must be from 0 to 1 of a step, got {dead_zone}')
  low, nearest = -2**(bits - 1), lsq_plus(bits)  # whose errors come now

  def facts(phi):
    if dead_zone != .5:
      raise EffjaxError(f'sparse_codes: no integer kernel has a dead zone of {dead_zone} steps: it rounds to nearest, '
                        'which is dead_zone=.5')
    return jnp.maximum(phi['scale'], FLOOR), jnp.int32(low)

  def apply(phi, x):
    scale = jnp.maximum(jax.lax.stop_gradient(phi['scale']), FLOOR)
    y, inside = sparse(x.astype(jnp.float32), scale, bits, dead_zone)
    return ste.surrogate(y.astype(x.dtype), x, inside.astype(x.dtype))

  own = ActivationQuantizer(lambda x: {'scale': sparse_step(x, bits, dead_zone)}, apply, facts, bits)
  return nearest._replace(from_zero=lambda: own)


def sparse(x: Float[Array, '*s'], scale: Float[Array, '#*s'], bits: int, dead_zone: float) -> tuple[Array, Array]:
  """The values of `sparse_codes`, and where their derivative is 1."""
  top = 2**bits - 1
  code = jnp.where(x > dead_zone * scale, jnp.clip(jnp.round(x * (1 / scale)), 1, top), 0.)
  return code * scale, (x > dead_zone * scale) & (x <= top * scale)


def sparse_step(x: Float[Array, '...'], bits: int, dead_zone: float = .5) -> Float[Array, '']:
  """The step of least squared error on the values above 0.

  >>> round(float(sparse_step(jnp.array([1., 2., 3.]), 2)), 6)
  1.0
  """
  x = jnp.maximum(x.astype(jnp.float32).ravel(), 0.)

  def better(_, scale):
    code = sparse(x, scale, bits, dead_zone)[0] * (1 / scale)
    energy = jnp.sum(code**2)
    return jnp.where(energy > 0, jnp.sum(x * code) / jnp.maximum(energy, 1.), scale)

  def fitted(part):
    scale = jax.lax.fori_loop(0, 30, better, jnp.maximum(jnp.max(x) * part, FLOOR))
    return jnp.sum((sparse(x, scale, bits, dead_zone)[0] - x)**2), scale

  errors, scales = jax.lax.map(fitted, jnp.asarray(_STARTS, jnp.float32))
  return scales[jnp.argmin(errors)]


def two_step(w: Float[Array, 'n m'], x: Float[Array, 'b k'], y: Float[Array, 'c o'], scale: Float[Array, ''], bits: int,
             *, dead_zone: float = .5, penalty: float = 1., rounds: int = 10) -> tuple[Float[Array, 'n m'],
                                                                                      Float[Array, '1 m']]:
  """`(a b, a)`, b of -1, 0, 1, of small `||y - Q(z)||^2 + penalty ||z - a X b||^2` for each output.

  In turn: z elementwise, the best of the nearest points of the intervals that have one code; a closed; b by
  coordinates. Starts from `z = X w`.

  Args:
    w: inputs x outputs, with which the network was trained on sparse codes.
    x: examples x inputs, from the quantized network.
    y: examples x outputs: what Q gave there in training.
    scale, bits, dead_zone: of Q, the output's `sparse_codes`.
    penalty: of the auxiliary z.
    rounds: over z, a and b.

  Raises:
    EffjaxError: a penalty that is not positive; shapes that do not belong together.

  Source: as `sparse_codes`, section 3.3.

  >>> w, x = jnp.array([[.9], [.1]]), jnp.array([[1., 0.], [0., 1.], [2., 1.]])
  >>> two_step(w, x, jnp.array([[1.], [0.], [2.]]), jnp.float32(1.), 2)[0].T.round(4)
  Array([[0.94, 0.  ]], dtype=float32)
  """
  if penalty <= 0 or x.shape[1] != len(w) or y.shape != (len(x), w.shape[1]):
    raise EffjaxError(f'two_step: wanted a positive penalty, x of shape [b, {len(w)}] and y of [b, {w.shape[1]}], got '
                      f'{penalty}, {x.shape} and {y.shape}')
  x, y, wide = (each.astype(jnp.float32) for each in (x, y, w))
  gram, target = x.T @ x, x @ wide

  def fit(target, b):
    return coordinate_codes(x.T @ target, gram, b, (0, 1), sweeps=3)

  def step(_, carry):
    b, a = carry
    return fit(nearest_inputs(y, a[None] * (x @ b), scale, bits, dead_zone, penalty), b)

  half = jnp.mean(jnp.abs(wide), 0, keepdims=True) * .7  # ternary as TWN starts it
  b, a = jax.lax.fori_loop(0, rounds, step, fit(target, jnp.where(jnp.abs(wide) > half, jnp.sign(wide), 0.)))
  return (b * a[None]).astype(w.dtype), a[None]


def nearest_inputs(y: Float[Array, '*s'], a: Float[Array, '*s'], scale: Float[Array, ''], bits: int, dead_zone: float,
                   penalty: float) -> Float[Array, '*s']:
  """`argmin_z (y - Q(z))^2 + penalty (z - a)^2`, elementwise: the best of the nearest z that have each code.

  At an open end of an interval z is the end itself, where the minimum is not reached.

  >>> nearest_inputs(jnp.array([1.]), jnp.array([.2]), jnp.float32(1.), 2, .5, 1.)
  Array([0.5], dtype=float32)
  """
  top = 2**bits - 1
  inner = [dead_zone, *(i + .5 for i in range(1, top))]
  best, found = jnp.full_like(y, jnp.inf), a
  for code, (low, high) in enumerate(zip([-np.inf, *inner], [*inner, np.inf])):
    z = jnp.clip(a, low * scale, high * scale)
    cost = (y - code * scale)**2 + penalty * (z - a)**2
    best, found = jnp.where(cost < best, cost, best), jnp.where(cost < best, z, found)
  return found
