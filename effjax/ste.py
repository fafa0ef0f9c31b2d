"""Straight-through estimators: the exact forward value, a surrogate derivative.

All are `jax.custom_jvp`, so that forward and reverse mode, `vmap` and higher derivatives work. The usual
`x + stop_gradient(q(x) - x)` is not used: in float32 it does not return `q(x)` exactly.
"""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_jvp
def round(x: Float[Array, '*s']) -> Float[Array, '*s']:
  """Nearest integer, ties to even; derivative 1 (Bengio et al. 2013, arXiv:1308.3432).

  >>> round(jnp.array([0.5, 1.5, -1.2])), jax.grad(round)(jnp.float32(0.3))
  (Array([ 0.,  2., -1.], dtype=float32), Array(1., dtype=float32))
  """
  return jnp.round(x)


round.defjvps(lambda t, ans, x: t)


@jax.custom_jvp
def clip(x: Float[Array, '*s'], low: Float[Array, '#*s'], high: Float[Array, '#*s']) -> Float[Array, '*s']:
  """`min(max(x, low), high)`; the derivative passes where `low <= x <= high` (ends included), else goes to the bound.

  `jnp.clip` splits the derivative at a tie; a quantizer that saturates exactly at its bound must not.

  >>> jax.grad(clip, argnums=2)(jnp.float32(3), jnp.float32(0), jnp.float32(2))
  Array(1., dtype=float32)
  """
  return jnp.minimum(jnp.maximum(x, low), high)


@clip.defjvp
def _clip_jvp(primals, tangents):
  x, low, high = primals
  dx, dlow, dhigh = tangents
  return clip(x, low, high), jnp.where(x < low, dlow, jnp.where(x > high, dhigh, dx))


@jax.custom_jvp
def sign(x: Float[Array, '*s']) -> Float[Array, '*s']:
  """+1 where `x >= 0`, else -1; derivative `|x| <= 1` (hard tanh; Hubara et al. 2016, survey [36]).

  >>> sign(jnp.array([-2., 0., 3.])), jax.vmap(jax.grad(sign))(jnp.array([.5, 1.5]))
  (Array([-1.,  1.,  1.], dtype=float32), Array([1., 0.], dtype=float32))
  """
  return jnp.where(x >= 0, jnp.ones_like(x), -jnp.ones_like(x))


sign.defjvps(lambda t, ans, x: jnp.where(jnp.abs(x) <= 1, t, jnp.zeros_like(t)))


@jax.custom_jvp
def threshold(x: Float[Array, '*s']) -> Float[Array, '*s']:
  """1 where `x > 0`, else 0; derivative 1: a hard gate that still learns.

  >>> threshold(jnp.array([-1., 0., 2.])), jax.grad(threshold)(jnp.float32(-1))
  (Array([0., 0., 1.], dtype=float32), Array(1., dtype=float32))
  """
  return jnp.where(x > 0, jnp.ones_like(x), jnp.zeros_like(x))


threshold.defjvps(lambda t, ans, x: t)


@jax.custom_jvp
def scale_gradient(x: Float[Array, '*s'], factor: float | Float[Array, '']) -> Float[Array, '*s']:
  """`x`; derivative `factor`.

  >>> jax.grad(scale_gradient)(jnp.float32(2), 0.1)
  Array(0.1, dtype=float32)
  """
  return x


scale_gradient.defjvps(lambda t, ans, x, factor: t * jnp.asarray(factor, t.dtype), None)


@jax.custom_jvp
def surrogate(y: Float[Array, '*s'], x: Float[Array, '*s'], slope: Float[Array, '#*s']) -> Float[Array, '*s']:
  """`y`; derivative `slope` times that of x, whatever y was made of.

  For quantizers: y the nearest representable values of x, slope 1 where x is in their range, else 0.

  >>> f = lambda x: surrogate(jnp.floor(x), x, (jnp.abs(x) <= 1).astype(x.dtype))
  >>> jax.vmap(jax.value_and_grad(f))(jnp.array([.5, 2.7]))
  (Array([0., 2.], dtype=float32), Array([1., 0.], dtype=float32))
  """
  return y


@surrogate.defjvp
def _surrogate_jvp(primals, tangents):
  y, x, slope = primals
  return surrogate(y, x, slope), (slope * tangents[1]).astype(y.dtype)
