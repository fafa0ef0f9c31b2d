"""The sum of a choice whose vector stands elsewhere: what cells share in which every copy of an edge chooses alike."""
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.search.choice import mixture, name_of


class Decision(nn.Module):
  """The vector of a choice that many places share: the parameter `choice`, shape [n], 1/n at the start.

  Args:
    operators: names of the n candidates.

  Raises:
    EffjaxError: no candidates.

  >>> import jax
  >>> Decision(('none', 'skip')).init_with_output(jax.random.key(0))[0]
  Array([0.5, 0.5], dtype=float32)
  """
  operators: tuple[str, ...]

  @nn.compact
  def __call__(self) -> Float[Array, ' n']:
    n = len(self.operators)
    if not n:
      raise EffjaxError(f'{name_of(self)}: no candidates: give it the name of an operator')
    return self.param('choice', lambda key: jnp.full(n, 1 / n, jnp.float32))


def own_decision(module: nn.Module, operators: tuple[str, ...]) -> Float[Array | np.ndarray, ' n']:
  """The vector of a module that is a choice itself, its parameter `choice`, as of a `Choice`; for its `__call__`.

  >>> import jax
  >>> class Sum(nn.Module):
  ...   @nn.compact
  ...   def __call__(self, x):
  ...     return own_decision(self, ('a', 'b')) @ x
  >>> Sum().init_with_output(jax.random.key(0), jnp.ones(2))
  (Array(1., dtype=float32), {'params': {'choice': Array([0.5, 0.5], dtype=float32)}})
  """
  decision = Decision(operators, name='decision')
  nn.share_scope(module, decision)
  return decision()


class Decisions(nn.Module):
  """The vectors of several such choices, by name: parameters `<name>/choice`.

  Args:
    operators: of each choice, by its name.

  >>> import jax
  >>> Decisions({'edge0': ('none', 'skip')}).init_with_output(jax.random.key(0))[0]
  {'edge0': Array([0.5, 0.5], dtype=float32)}
  """
  operators: Mapping[str, tuple[str, ...]]

  @nn.compact
  def __call__(self) -> dict[str, Float[Array | np.ndarray, ' n']]:
    return {name: Decision(operators, name=name)() for name, operators in self.operators.items()}


class Mixed(nn.Module):
  """`y = sum_i p_i op_i(x, train)` with p given, where `Choice` has one of its own.

  A one-hot of NumPy's is a choice that has been made (see `Derived`): only its operator is traced.

  Args:
    ops: modules called as `op(x, train)`, all with one output shape; a module's own name is kept in the tree.
    paths: as in `Choice`.

  Raises:
    EffjaxError: p of another length than ops; operators of different output shapes; paths below 1.

  Source: the mixed operation of DARTS, Liu et al. 2019, arXiv:1806.09055, survey [68].

  >>> import jax
  >>> from effjax.search.choice import Skip
  >>> Mixed((Skip(name='a'), Skip(name='b'))).apply({}, jnp.ones(2), jnp.array([2., 3.]), False)
  Array([5., 5.], dtype=float32)
  """
  ops: tuple[nn.Module, ...]
  paths: int | None = None
  preserve_adopted_names = True

  @nn.compact
  def __call__(self, x: Float[Array, '*s'], p: Float[Array | np.ndarray, ' n'],
               train: bool) -> Float[Array, '*s2']:
    n, where = len(self.ops), name_of(self)
    if n != len(p):
      raise EffjaxError(f'{where}: {n} operators, wanted {len(p)}, one per entry of p: give each entry its operator')
    if (made := decided(p)) is not None:
      return self.ops[made](x, train)
    return mixture(where, self, jnp.asarray(p), x, train)


def decided(p: Float[Array | np.ndarray, ' n']) -> int | None:
  """The operator of a choice that has been made, which is a one-hot of NumPy's; None while it is open.

  >>> decided(np.array([0., 1.])), decided(jnp.array([0., 1.]))
  (1, None)
  """
  made = isinstance(p, np.ndarray) and sorted(p) == [0.] * (len(p) - 1) + [1.]
  return int(np.argmax(p)) if made else None
