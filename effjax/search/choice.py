"""A choice between operators: their sum, each times an entry of an ordinary parameter."""
import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from effjax import relax, schedule
from effjax.errors import EffjaxError
from effjax.reparam import Fact, Rule, Slots


class Choice(nn.Module):
  """`y = sum_i p_i op_i(x, train)`, with `p` the parameter `choice`, shape [n], 1/n at the start.

  Rules on that leaf (`search.softmax`, `search.gumbel`) make a search of it; a one-hot p makes it one operator.

  Args:
    ops: modules called as `op(x, train)`, all with one output shape; a module's own name is kept in the tree.
    paths: so many operators run, those of the largest entries, None all. Nothing of them is kept for the backward pass
      but x: a training step takes their memory and not that of all. 1 is for rules that draw one-hots: y is the sum
      then. Its gradient has the entry of the drawn operator alone, as GDAS has it; BatchNorm's statistics of the others
      stay. 2 is for rules with two entries that are not 0, and so on; what is smaller is left out.
      `effjax.graph` does not look into it: profile, shrink and export with None, on the same parameters.

  Raises:
    EffjaxError: no candidates, candidates of different output shapes, or paths below 1.

  Source: the mixed operation of DARTS, Liu et al. 2019, arXiv:1806.09055, survey [68].

  >>> import jax
  >>> choice = Choice((Skip(name='a'), Skip(name='b')))
  >>> choice.init_with_output(jax.random.key(0), jnp.ones((1, 2)), False)
  (Array([[1., 1.]], dtype=float32), {'params': {'choice': Array([0.5, 0.5], dtype=float32)}})
  """
  ops: tuple[nn.Module, ...]
  paths: int | None = None
  preserve_adopted_names = True

  @nn.compact
  def __call__(self, x: Float[Array, '...'], train: bool) -> Float[Array, '...']:
    n = len(self.ops)
    if n == 0:
      raise EffjaxError(f'{name_of(self)}: no candidates for an input of shape {x.shape}: give it an operator')
    p = self.param('choice', lambda key: jnp.full(n, 1 / n, jnp.float32))
    return mixture(name_of(self), self, p, x, train)


def mixture(who: str, choice: nn.Module, p: Float[Array, ' n'], x: Array, train: bool) -> Array:
  """What `Choice` and `Mixed` do: `sum_i p_i op_i(x, train)` of `choice.ops`, or of the paths that it asks for.

  Raises:
    EffjaxError: candidates of different output shapes; paths below 1. `who` asks.
  """
  if choice.paths is not None and choice.paths < 1:
    raise EffjaxError(f'{who}: paths={choice.paths}, wanted 1 or more, or None for all operators')
  if choice.paths is None or choice.is_initializing():
    return weighted_sum(who, p, [op.name for op in choice.ops], [op(x, train) for op in choice.ops])
  # Without remat each branch would keep what all of them need: a switch has one set of residuals.
  branches = [nn.remat(lambda choice, x, k=k: choice.ops[k](x, train)) for k in range(len(choice.ops))]
  largest = lax.top_k(p, min(choice.paths, len(choice.ops)))[1]
  paths = [(i, nn.switch(i, branches, choice, x)) for i in largest]
  return functools.reduce(jnp.add, [p[i].astype(y.dtype) * y for i, y in paths])


def weighted_sum(who: str, p: Float[Array, ' n'], names: Sequence[str | None], ys: Sequence[Array]) -> Array:
  """`sum_i p_i y_i` of what the candidates of these names gave: `who` asks.

  Each y is multiplied by a single entry of p, which is how `effjax.graph` sees that the entry guards it.

  Raises:
    EffjaxError: candidates of different output shapes.

  >>> weighted_sum('Choice', jnp.array([2., 3.]), ('a', 'b'), [jnp.ones(1), jnp.ones(1)])
  Array([5.], dtype=float32)
  """
  for name, y in zip(names, ys, strict=True):
    if y.shape != ys[0].shape:
      raise EffjaxError(f'{who}: candidate {name!r} gives shape {y.shape}, candidate {names[0]!r} gives '
                        f'{ys[0].shape}: all candidates must give one shape')
  return functools.reduce(jnp.add, [p[i].astype(y.dtype) * y for i, y in enumerate(ys)])


class Skip(nn.Module):
  """`y = x`: the candidate that does nothing.

  >>> Skip().apply({}, jnp.ones(2), True)
  Array([1., 1.], dtype=float32)
  """

  @nn.compact
  def __call__(self, x: Float[Array, '...'], train: bool) -> Float[Array, '...']:
    return x


def check_choice(rule: str, p: Float[Array, '...']) -> None:
  """A rule on a Choice leaf replaces it, so it must not be given a kernel.

  Raises:
    EffjaxError: the leaf is not a vector.

  >>> import jax
  >>> check_choice('softmax', jnp.ones((3, 3)))
  Traceback (most recent call last):
  effjax.errors.EffjaxError: softmax: wants the vector of a Choice, got an array of shape (3, 3): narrow the pattern, \
e.g. '.*choice'
  """
  if jnp.ndim(p) != 1:
    raise EffjaxError(f'{rule}: wants the vector of a Choice, got an array of shape {jnp.shape(p)}: '
                      "narrow the pattern, e.g. '.*choice'")


def choice_rule(name: str, draw: Callable, expected: Callable = lambda logits, step: relax.softmax(logits), *,
                trained: bool = True) -> Rule:
  """What all weightings of a `Choice` share: logits of zero, a one-hot of the largest where deployed, a counted step.

  Args:
    name: of the weighting, for its errors.
    draw: `(key, logits, step) -> [n]`, the entries of the leaf while the choice is open.
    expected: `(logits, step) -> [n]`, the soft fact; `softmax(logits)` unless given.
    trained: the logits are a decision. Else no gradient reaches them, and they are part of the state.

  Slots: theta None; phi = {'logits': [n]}; state = {'step'}. Untrained: phi = {}; state = {'logits', 'step'}.
  Facts: choice: soft, `expected`; hard, the one-hot of the largest logit (the first of equals).

  Raises:
    EffjaxError: a leaf that is not a vector.

  >>> import jax
  >>> rule = choice_rule('softmax', lambda key, logits, step: relax.softmax(logits))
  >>> slots = rule.init(jax.random.key(0), jnp.ones(2))
  >>> rule.apply(*slots, jax.random.key(1)), rule.apply(*slots, None)
  (Array([0.5, 0.5], dtype=float32), Array([1., 0.], dtype=float32))
  """
  logits = lambda phi, state: {**phi, **state}['logits']

  def init(key, w):
    check_choice(name, w)
    start, steps = {'logits': jnp.zeros(w.shape, w.dtype)}, {'step': schedule.start()}
    return Slots(None, start, steps) if trained else Slots(None, {}, {**start, **steps})

  def apply(theta, phi, state, key):
    a = logits(phi, state)
    return relax.straight_through(a) if key is None else draw(key, a, state['step'])

  def facts(slots, hard):
    return Fact(choice=apply(*slots, None) if hard else expected(logits(*slots[1:]), slots.state['step']))

  return Rule(init, apply, facts,
              update=lambda slots, gradient: {**slots.state, 'step': schedule.advance(slots.state['step'])},
              decisions=frozenset({'logits'}))


def name_of(module: nn.Module) -> str:
  """What errors call a module within its network: its class and its path.

  >>> name_of(Skip().bind({}))
  'Skip (top)'
  """
  return f'{type(module).__name__} {"/".join(module.path) or "(top)"}'
