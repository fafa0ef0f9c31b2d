"""The sharpness of the held-out loss by the decisions, and the early stop that watches it."""
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax import tree
from effjax.errors import EffjaxError
from effjax.tree import PyTree

Key = jax.Array


class Eigenpair(NamedTuple):
  """`H vector = value vector` up to `residual = |H vector - value vector|`; vector has length 1 and either sign."""
  value: Float[Array, '']
  vector: PyTree
  residual: Float[Array, '']


def dominant_eigenvalue(key: Key, loss: Callable[[PyTree], Float[Array, '']], decisions: PyTree, *,
                        tolerance: float = 1e-3, max_steps: int = 200) -> Eigenpair:
  """The eigenvalue of largest magnitude, with its sign, of `H = d2 loss / ddecisions2`.

  Power iteration `v <- H v / |H v|` from a random v; the value is the Rayleigh quotient `v^T H v`. It ends when the
  residual is at most `tolerance |value|`, or after `max_steps`, each one Hessian-vector product (a `jvp` of `grad`).
  By then some eigenvalue is within `residual` of `value`, and mostly much nearer: its square over the gap. Two of equal
  magnitude and opposite sign never settle: look at `residual`. A Hessian of zeros gives 0.

  Args:
    loss: of the decisions alone, with weights and a held-out batch closed over.
    tolerance: relative, of the residual; 16-bit decisions want a larger one.
    max_steps: at least 1.

  Raises:
    EffjaxError: decisions without entries, no step.

  Source: Zela, Elsken, Saikia, Marrakchi, Brox, Hutter 2020, "Understanding and robustifying differentiable
  architecture search", arXiv:1909.09656: the eigenvalue grows before searches collapse.
  Differs from the paper: the authors make the whole Hessian; here it is never made.

  >>> pair = dominant_eigenvalue(jax.random.key(0), lambda a: a[0]**2 - 2 * a[1]**2, jnp.zeros(2))
  >>> round(float(pair.value), 2), jnp.abs(pair.vector).round(2)
  (-4.0, Array([0., 1.], dtype=float32))
  """
  if max_steps < 1 or not sum(jnp.size(leaf) for leaf in jax.tree.leaves(decisions)):
    raise EffjaxError(f'dominant_eigenvalue: wants decisions with entries and max_steps >= 1, got leaves '
                      f'{list(tree.leaves(decisions))} and max_steps={max_steps}: pass the logits of a search')
  product = lambda v: jax.jvp(jax.grad(loss), (decisions,), (v,))[1]

  def measured(v):
    hv = product(v)
    value = _dot(v, hv)
    rest = jax.tree.map(lambda h, v: h - value.astype(v.dtype) * v, hv, v)
    return hv, Eigenpair(value, v, jnp.sqrt(_dot(rest, rest)))

  def unfinished(carry):
    i, _, pair = carry
    return (i < max_steps) & (pair.residual > tolerance * jnp.abs(pair.value))

  def step(carry):  # the only place of the product, which takes long to compile
    i, hv, _ = carry
    return (i + 1, *measured(_unit(hv)))

  v = _random(key, decisions)
  start = Eigenpair(jnp.zeros((), float), v, jnp.full((), jnp.inf, float))
  return jax.lax.while_loop(unfinished, step, (0, v, start))[2]


def should_stop(history: Sequence[float], window: int = 5, factor: float = .75) -> int | None:
  """The epoch to go back to if the search is to stop now, else None; ask `is not None`, as epoch 0 is false.

  With `m(i)` the mean of `window` values around i, and i the last epoch that has all of them, R-DARTS stops when
  `m(i - window) / m(i) < factor`, and returns the decisions of epoch `i - window`. Values may be negative: a curvature
  that is not positive is not sharp, so nothing stops while `m(i) <= 0`.

  Args:
    history: the dominant eigenvalue after each epoch so far, plain numbers; entries where another frequency is
      measured, and then the result counts entries too.
    window: of the mean, and the distance that is compared: odd, so that i is its middle.
    factor: of growth, in (0, 1).

  Raises:
    EffjaxError: a window that is not odd and positive, a factor outside (0, 1), a value that is not finite.

  Source: Zela et al. 2020, arXiv:1909.09656.
  Differs from the paper: nothing where means are positive. The authors' code measures every second epoch, compares over
  4 measurements with 1 / 1.3, and never goes back before an epoch that is given; for that, start `history` there.

  >>> should_stop([1., 1., 1., 1., 1., 1.]), should_stop([1., 1., 1., 2.], window=1)
  (None, 2)
  """
  if window < 1 or window % 2 == 0 or not 0 < factor < 1:
    raise EffjaxError(f'should_stop: wants an odd window and 0 < factor < 1, got window={window} and factor={factor}: '
                      'the defaults of the paper are 5 and 0.75')
  if bad := [i for i, value in enumerate(history) if not abs(value) < float('inf')]:
    raise EffjaxError(f'should_stop: the eigenvalues of epochs {bad} are not finite: did the search diverge?')
  start = len(history) - 2 * window  # of the earlier mean
  if start < 0:
    return None
  before, now = sum(history[start:start + window]), sum(history[start + window:])
  return start + window // 2 if now > 0 and before < factor * now else None


def _dot(a, b):
  """The inner product of two trees, in float32 or, where it is enabled, float64."""
  return sum(jnp.vdot(x.astype(float), y.astype(float)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def _unit(v):
  """v of length 1; of a v that is all zero, itself. Scaled first, so that squares neither vanish nor overflow."""
  largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x.astype(float)), initial=0) for x in jax.tree.leaves(v)]))
  v = jax.tree.map(lambda x: x / jnp.where(largest > 0, largest, 1).astype(x.dtype), v)
  return jax.tree.map(lambda x: x / jnp.sqrt(jnp.maximum(_dot(v, v), 1)).astype(x.dtype), v)


def _random(key, like):
  return tree.map_at(lambda path, x: jax.random.normal(tree.fold(key, path), jnp.shape(x), jnp.result_type(x)),
                     like, tree.leaves(like))
