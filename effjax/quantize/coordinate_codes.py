"""Few codes that keep a layer's outputs, one coordinate after another, and the two methods that rest on it."""
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.quantize.exact_scale import Codes, check_codes, nearest_codes
from effjax.quantize.granularity import check_finite


def coordinate_codes(cross: Float[Array, 'n m'], gram: Float[Array, 'n n'], start: Float[Array, 'n m'], codes: Codes, *,
                     sweeps: int = 20) -> tuple[Float[Array, 'n m'], Float[Array, ' m']]:
  """`(B, a)` of small `sum_columns ||t - a X^T b||^2`, given only `cross = X t` and `gram = X X^T`.

  In turn: `a = b.u / b^T G b`, and for each j the code nearest to `(u_j / a - sum_{k != j} G_jk b_k) / G_jj`, which is
  the best one while all others stay: the objective never rises. A negative a flips b.

  Args:
    cross: u, one column an output.
    gram: G; an input that is always 0 keeps its code.
    start: codes to start from.
    codes: magnitudes, each with both signs (see `exact_scale`): (1,) binary, (0, 1) ternary.
    sweeps: over all coordinates; it stands still sooner, mostly.

  >>> codes, scale = coordinate_codes(jnp.array([[2.], [-4.]]), jnp.eye(2), jnp.array([[1.], [-1.]]), (1,))
  >>> codes.T, scale
  (Array([[ 1., -1.]], dtype=float32), Array([3.], dtype=float32))
  """
  codes = check_codes('coordinate_codes', codes)
  one = lambda cross, start: _one(cross, gram, start, codes, sweeps)
  return jax.vmap(one, 1, (1, 0))(cross, start)


def _one(cross, gram, start, codes, sweeps):
  """The codes and the scale of one column."""
  diagonal = jnp.diag(gram)
  inverse = jnp.where(diagonal > 0, 1 / jnp.where(diagonal > 0, diagonal, jnp.ones_like(diagonal)), 0.)

  def scaled(b):
    energy = b @ gram @ b
    a = jnp.where(energy > 0, b @ cross / jnp.where(energy > 0, energy, jnp.ones_like(energy)), 0.)
    return jnp.where(a < 0, -b, b) + 0., jnp.abs(a)  # no negative zero

  def sweep(_, carry):
    b, a = carry
    target = cross * jnp.where(a > 0, 1 / jnp.where(a > 0, a, jnp.ones_like(a)), 0.)

    def one(j, b):
      best = (target[j] - gram[j] @ b + diagonal[j] * b[j]) * inverse[j]
      found = nearest_codes(best, jnp.ones_like(best), codes)
      return b.at[j].set(jnp.where((diagonal[j] > 0) & (a > 0), found, b[j]))

    return scaled(jax.lax.fori_loop(0, len(b), one, b))

  return jax.lax.fori_loop(0, sweeps, sweep, scaled(start))


def hashing(w: Float[Array, 'n m'], gram: Float[Array, 'n n'], *, sweeps: int = 20, starts: int = 1,
            key: jax.Array | None = None) -> tuple[Float[Array, 'n m'], Float[Array, '1 m']]:
  """`(a b, a)` for each output: `min ||X^T w - a X^T b||^2`, b of -1 and 1, by discrete coordinate descent.

  `a = w^T G b / b^T G b`, `b_j = sign(a (G w)_j - a^2 sum_{k != j} G_jk b_k)`, `G = X X^T`. Layer by layer, X being
  what the layers before, already binary, give.

  Args:
    w: inputs x outputs; a convolution's kernel as `kernel.reshape(-1, cout)`.
    gram: G, of the inputs; in float32.
    sweeps: over all coordinates.
    starts: b starts from sign(w), and that often less one from random signs; the best one is taken.
    key: of the random signs.

  Raises:
    EffjaxError: starts below 1; more than one without a key; w that is not finite.

  Differs from the paper: more than one start on request; a negative a flips b.

  Source: Hu, Wang, Cheng, "From Hashing to CNNs: Training Binary Weight Networks via Hashing", AAAI 2018,
  arXiv:1802.02733, survey [39].

  >>> hashing(jnp.array([[.5], [-1.5]]), jnp.eye(2))
  (Array([[ 1.],
         [-1.]], dtype=float32), Array([[1.]], dtype=float32))
  """
  if starts < 1 or (starts > 1 and key is None):
    raise EffjaxError(f'hashing: starts must be at least 1, and more than 1 wants a key, got starts={starts}')
  check_finite('hashing', w)
  gram, wide = gram.astype(jnp.float32), w.astype(jnp.float32)
  first = nearest_codes(wide, jnp.ones((1, 1), jnp.float32), (1,))[None]
  if starts > 1:
    first = jnp.concatenate([first, jax.random.rademacher(key, (starts - 1, *w.shape), jnp.float32)])
  fit = functools.partial(coordinate_codes, gram @ wide, gram, codes=(1,), sweeps=sweeps)
  b, a = jax.vmap(lambda start: fit(start=start))(first)
  off = wide[None] - a[:, None] * b
  best = jnp.argmin(jnp.sum(off * jnp.einsum('ij,sjm->sim', gram, off), 1), 0)
  take = lambda x: jnp.take_along_axis(x, best.reshape(1, *[1] * (x.ndim - 2), -1), 0)[0]
  return (take(b) * take(a)[None]).astype(w.dtype), take(a)[None]
