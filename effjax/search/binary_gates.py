"""ProxylessNAS: binary gates, one path open a step."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax import relax, ste
from effjax.errors import EffjaxError
from effjax.reparam import Rule
from effjax.search.choice import choice_rule


def binary_gates(*, paths: int = 1) -> Rule:
  """The entries of a `Choice` leaf as binary gates g: the one-hot of one operator drawn from `p = softmax(a)`, per key.

  With `key=None` the one-hot of the largest logit. Gradient (eq. 4): `dL/da_i = sum_j dL/dg_j p_j (delta_ij - p_i)`.
  For a loss that is linear in each one-hot its mean is exactly the gradient of the expected loss.

  With `paths=2` two operators are drawn without replacement, p is a softmax over these two, g is drawn from it, and
  the gradient of all other logits is 0. Its mean is not the gradient of the expected loss. After the optimizer's
  step `rescale` gives the other operators their probabilities back. The closed gate of the two is the smallest normal
  number instead of 0: it changes no sum, and tells a choice with `paths=2` which operator runs beside the open one.

  Args:
    paths: how many operators one step compares, 1 or 2.

  Slots: theta None; phi = {'logits': [n]}, a decision, zeros at the start; state = {'step'}.
  Facts: choice: soft, `softmax(a)` over all operators; hard, the one-hot (the first of equals).

  Raises:
    EffjaxError: paths is not 1 or 2; a leaf that is not a vector; two paths of a single operator.

  Differs from the paper: unless the choice has `paths=2` too, all operators run and closed gates multiply by 0, so no
  memory is saved: the gradient needs what each would have given. With a choice of `paths=1` it would have the entry
  of the open gate alone.

  Source: Cai, Zhu, Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR 2019,
  arXiv:1812.00332.

  >>> rule = binary_gates()
  >>> slots = rule.init(jax.random.key(0), jnp.ones(2))
  >>> loss = lambda phi: rule.apply(None, phi, slots.state, jax.random.key(1)) @ jnp.array([0., 4.])
  >>> jax.grad(loss)(slots.phi)
  {'logits': Array([-1.,  1.], dtype=float32)}
  """
  if paths not in (1, 2):
    raise EffjaxError(f'binary_gates: paths must be 1 or 2, got {paths}: one step compares all operators or a pair')
  return choice_rule('binary_gates', lambda key, logits, step: _one(key, logits) if paths == 1 else _two(key, logits))


def rescale(old: Float[Array, ' n'], new: Float[Array, ' n']) -> Float[Array, ' n']:
  """The logits that a step moved, shifted together so that all others keep their `softmax`: after `paths=2`.

  `new_i + log(sum_k exp(old_k) / sum_k exp(new_k))` for i and k among those with `new_k != old_k`. An optimizer with
  momentum moves all of them; the paper's has none (Adam with b1 = 0).

  >>> jax.nn.softmax(rescale(jnp.zeros(4), jnp.array([3., 0., 0., -1.])))[1:3]
  Array([0.25, 0.25], dtype=float32)
  """
  moved = new != old
  mass = lambda a: jax.nn.logsumexp(jnp.where(moved, a, -jnp.inf))
  return jnp.where(moved, new + (mass(old) - mass(new)), new)


def _one(key, logits):
  drawn = jax.random.categorical(key, logits.astype(jnp.float32))
  return _gate(jax.nn.one_hot(drawn, logits.size, dtype=logits.dtype), relax.softmax(logits))


def _two(key, logits):
  if logits.size < 2:
    raise EffjaxError(f'binary_gates: paths=2 wants two operators, got {logits.size}: use paths=1')
  first, second = jax.random.split(key)
  a = logits.astype(jnp.float32)
  pair = jax.lax.top_k(a + jax.random.gumbel(first, a.shape), 2)[1]
  drawn = pair[jax.random.categorical(second, a[pair])]
  shut = jnp.zeros_like(logits).at[pair].set(jnp.finfo(logits.dtype).tiny)
  return _gate(shut.at[drawn].set(1.), shut.at[pair].set(relax.softmax(logits[pair])))


def _gate(g, p):
  """The gates that were drawn, with the derivative of p."""
  return ste.surrogate(g, p, jnp.ones_like(p))
