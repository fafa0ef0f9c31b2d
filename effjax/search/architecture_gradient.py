"""The gradient of a bilevel search by its decisions: first order, finite differences, unrolled, implicit.

`train_loss(weights, decisions)` and `val_loss(weights, decisions)` are scalars of any two pytrees; batches and keys are
closed over. All return `(val_loss, gradient)`, the gradient like `decisions` in structure and dtypes; with
`has_aux=True`, `val_loss` returns `(loss, aux)`, and so they do in its place.
"""
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax import tree
from effjax.errors import EffjaxError
from effjax.tree import PyTree

Loss = Callable[[PyTree, PyTree], Float[Array, '']]
InnerStep = Callable[[PyTree, PyTree], PyTree]
Rate = float | Float[Array, '']
PERTURBATION = .01  # length of eps u: the paper's


def first_order(val_loss: Loss, weights: PyTree, decisions: PyTree, *, has_aux: bool = False) -> tuple[PyTree, PyTree]:
  """`g = d/da L_val(w, a)`: the weights taken for optimal whatever the decisions are, DARTS with `xi = 0`.

  Source: Liu et al. 2019, "DARTS: Differentiable architecture search", arXiv:1806.09055, survey [68].

  >>> first_order(lambda w, a: a * w, jnp.float32(3.), jnp.float32(2.))
  (Array(6., dtype=float32), Array(3., dtype=float32))
  """
  return jax.value_and_grad(val_loss, argnums=1, has_aux=has_aux)(weights, decisions)


def unrolled(train_loss: Loss, val_loss: Loss, weights: PyTree, decisions: PyTree, *, inner_rate: Rate | None = None,
             inner_step: InnerStep | None = None, has_aux: bool = False) -> tuple[PyTree, PyTree]:
  """`g = d/da L_val(w'(a), a)`, `w'(a) = w - xi dL_train/dw(w, a)` (eq. 6 and 7), differentiated exactly.

  Args:
    inner_rate: xi, of one step of SGD; the paper takes the learning rate of the weights.
    inner_step: instead of it any `w' = inner_step(weights, gradient)`: with momentum and weight decay as the
      optimizer of the weights has them, or with a mean over devices.

  Raises:
    EffjaxError: both or neither of `inner_rate` and `inner_step`.

  Source: Liu et al. 2019, arXiv:1806.09055, survey [68].
  Differs from the paper: no finite difference. Works in reverse mode alone, so that losses may contain `custom_vjp`.

  >>> train, val = lambda w, a: (w - a)**2 / 2, lambda w, a: w**2 / 2
  >>> unrolled(train, val, jnp.float32(2.), jnp.float32(1.), inner_rate=.5)  # w' = 1.5, g = xi w'
  (Array(1.125, dtype=float32), Array(0.75, dtype=float32))
  """
  step = _inner_step('unrolled', inner_rate, inner_step)

  def after_inner_step(a):
    return val_loss(step(weights, jax.grad(train_loss)(weights, a)), a)

  return jax.value_and_grad(after_inner_step, has_aux=has_aux)(decisions)


def finite_differences(train_loss: Loss, val_loss: Loss, weights: PyTree, decisions: PyTree, *,
                       inner_rate: Rate | None = None, inner_step: InnerStep | None = None,
                       has_aux: bool = False) -> tuple[PyTree, PyTree]:
  """`unrolled` with its mixed derivative as a central difference of first gradients (eq. 8), which takes less memory.

  `g = dL_val/da(w', a) + (dL_train/da(w + eps u, a) - dL_train/da(w - eps u, a)) / (2 eps)`, `eps = 0.01 / ||u||`.
  `u = (dw'/dgradient)^T dL_val/dw'` is `-xi v` of the paper for SGD. It is w that is perturbed, not w'.

  Args: as of `unrolled`.

  Raises:
    EffjaxError: both or neither of `inner_rate` and `inner_step`; a leaf of 16 bits, whose rounding is as large as the
      differences.

  Source: Liu et al. 2019, arXiv:1806.09055, survey [68].

  >>> train, val = lambda w, a: (w - a)**2 / 2, lambda w, a: w**2 / 2
  >>> loss, gradient = finite_differences(train, val, jnp.float32(2.), jnp.float32(1.), inner_rate=.5)
  >>> float(loss), round(float(gradient), 3)
  (1.125, 0.75)
  """
  step = _inner_step('finite_differences', inner_rate, inner_step)
  _check_precision({'weights': weights, 'decisions': decisions})
  new, pull = jax.vjp(lambda gradient: step(weights, gradient), jax.grad(train_loss)(weights, decisions))
  value, (dw, da) = jax.value_and_grad(val_loss, argnums=(0, 1), has_aux=has_aux)(new, decisions)
  u, = pull(dw)
  norm = jnp.sqrt(sum(jnp.sum(x.astype(float)**2) for x in jax.tree.leaves(u)))
  eps = PERTURBATION / jnp.where(norm > 0, norm, 1)  # u = 0 perturbs nothing, and gives 0 / (2 eps)
  at = lambda e: jax.grad(train_loss, argnums=1)(_plus(weights, e, u), decisions)
  return value, jax.tree.map(lambda g, p, n: g + (p - n) / (2 * eps).astype(g.dtype), da, at(eps), at(-eps))


def implicit(train_loss: Loss, val_loss: Loss, weights: PyTree, decisions: PyTree, *, inner_rate: Rate, terms: int,
             has_aux: bool = False) -> tuple[PyTree, PyTree]:
  """`g = dL_val/da - d2L_train/dadw H^-1 dL_val/dw` at w: exact at the weights' optimum, where the series converges.

  `H^-1 v` with `H = d2L_train/dw2` is `xi sum_{k < K} (I - xi H)^k v`: it converges if `0 < H < 2 / xi`. K = 1 is one
  unrolled step that ends at w; each further term costs one Hessian-vector product, a `jvp` of `grad`, and no memory.

  Args:
    inner_rate: xi > 0.
    terms: K >= 1.

  Raises:
    EffjaxError: fewer than one term.

  Source: Lorraine, Vicol, Duvenaud 2020, "Optimizing millions of hyperparameters by implicit differentiation",
  arXiv:1911.02590, theorem 1 and algorithm 3.

  >>> train, val = lambda w, a: (w - a)**2 / 2, lambda w, a: w**2 / 2
  >>> loss, gradient = implicit(train, val, jnp.float32(2.), jnp.float32(2.), inner_rate=.5, terms=20)
  >>> float(loss), round(float(gradient), 3)  # w = a: d(a**2 / 2)/da
  (2.0, 2.0)
  """
  if terms < 1:
    raise EffjaxError(f'implicit: wants at least 1 term, got {terms}: use first_order for none')
  value, (dw, da) = jax.value_and_grad(val_loss, argnums=(0, 1), has_aux=has_aux)(weights, decisions)

  def derivative(argnum, direction):
    gradient = lambda w: jax.grad(train_loss, argnums=argnum)(w, decisions)
    return jax.jvp(gradient, (weights,), (direction,))[1]

  def body(_, carry):
    term, total = carry
    term = _plus(term, -inner_rate, derivative(0, term))
    return term, _plus(total, 1, term)

  _, total = jax.lax.fori_loop(0, terms - 1, body, (dw, dw))
  return value, _plus(da, -inner_rate, derivative(1, total))


def _plus(x, rate, direction):
  """`x + rate direction`, in the dtypes of x."""
  return jax.tree.map(lambda x, d: x + jnp.asarray(rate, x.dtype) * d, x, direction)


def _inner_step(who, inner_rate, inner_step):
  if (inner_rate is None) == (inner_step is None):
    got = 'neither' if inner_rate is None else 'both'
    raise EffjaxError(f'{who}: wants either inner_rate or inner_step, got {got}: '
                      'the rate is usually the learning rate of the weights')
  return inner_step or (lambda weights, gradient: _plus(weights, -inner_rate, gradient))


def _check_precision(trees):
  for path, leaf in tree.leaves(trees).items():
    if jnp.result_type(leaf).itemsize < 4:
      raise EffjaxError(f'finite_differences: leaf {path!r} has dtype {jnp.result_type(leaf)}, wanted float32 or '
                        'float64: rounding is as large as the differences, use unrolled')
