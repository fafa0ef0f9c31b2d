"""The network of one architecture, from the code of the supernet."""
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from effjax import tree
from effjax.errors import EffjaxError
from effjax.search.choice import Choice
from effjax.search.encoding import Architecture, encode, space_of
from effjax.search.mixed import Decision
from effjax.tree import PyTree


class Derived(NamedTuple):
  """`net` with the operators of `architecture` alone: a network that is called as `net.init`, `net.apply`.

  Nothing of other operators is traced, and the vectors of the choices are gone. Parameters are some of the supernet's,
  under the same paths: `net.init` makes them fresh, `inherited` takes them from a supernet that was trained.

  Args:
    net: any Linen module with `Choice`, or `Decision` and `Mixed`, in it.
    architecture: the operator of each choice, as of `encoding.decode`.

  >>> from effjax.search.choice import Skip
  >>> net = Choice((Skip(name='skip'), Skip(name='other')))
  >>> Derived(net, {'choice': 'skip'}).init_with_output(jax.random.key(0), jnp.ones((1, 2)), False)
  (Array([[1., 1.]], dtype=float32), {})
  """
  net: nn.Module
  architecture: Architecture

  def check(self, *args: Any) -> 'Derived':
    """The same, if the architecture is one of the supernet's space; args as of a call, such as `x, False`.

    Raises:
      EffjaxError: an architecture of another space: what is missing or unknown, by name.

    >>> from effjax.search.choice import Skip
    >>> Derived(Choice((Skip(name='a'), Skip(name='b'))), {'choice': 'b'}).check(jnp.ones(2), False).architecture
    {'choice': 'b'}
    """
    encode(space_of(self.net, *args), self.architecture)
    return self

  def init(self, *args: Any, **kwargs: Any) -> Any:
    """As of a Linen module."""
    return self._run(self.net.init, *args, **kwargs)

  def lazy_init(self, *args: Any, **kwargs: Any) -> Any:
    """As of a Linen module."""
    return self._run(self.net.lazy_init, *args, **kwargs)

  def init_with_output(self, *args: Any, **kwargs: Any) -> Any:
    """As of a Linen module."""
    return self._run(self.net.init_with_output, *args, **kwargs)

  def apply(self, *args: Any, **kwargs: Any) -> Any:
    """As of a Linen module."""
    return self._run(self.net.apply, *args, **kwargs)

  def inherited(self, variables: PyTree, *args: Any) -> PyTree:
    """What this network has of the variables of its supernet; args as of a call, such as `x, False`.

    Raises:
      EffjaxError: variables of another network.

    >>> from effjax.layers.conv_bn import ConvBN
    >>> net, x = Choice((ConvBN(3, name='a', parent=None), ConvBN(3, name='b', parent=None))), jnp.ones((1, 4, 4, 3))
    >>> sorted(Derived(net, {'choice': 'b'}).inherited(net.init(jax.random.key(0), x, False), x, False)['params'])
    ['b']
    """
    like = jax.eval_shape(lambda key: self.init(key, *args), jax.random.key(0))
    have = tree.leaves(variables)
    if missing := [path for path, x in tree.leaves(like).items() if jnp.shape(have.get(path)) != x.shape]:
      raise EffjaxError(f'Derived: the variables have no {missing[0]!r} of the shape wanted: are they of the supernet '
                        f'{type(self.net).__name__} with these options?')
    return tree.map_at(lambda path, _: have[path], like, tree.leaves(like))

  def _run(self, method, *args, **kwargs):
    with nn.intercept_methods(functools.partial(_decided, self.architecture)):
      return method(*args, **kwargs)


def _decided(architecture, method, args, kwargs, context):
  """Decisions are constants, of which `Mixed` takes the operator, and a `Choice` is its operator."""
  module = context.module
  if context.method_name != '__call__':
    return method(*args, **kwargs)
  path = '/'.join((*module.path, 'choice'))
  if isinstance(module, Decision):
    return np.eye(len(module.operators), dtype=np.float32)[_index(architecture, path, module.operators)]
  if isinstance(module, Choice):
    return module.ops[_index(architecture, path, tuple(op.name for op in module.ops))](*args, **kwargs)
  return method(*args, **kwargs)


def _index(architecture, path, names):
  if path not in architecture:
    raise EffjaxError(f'Derived: the architecture does not make choice {path!r}, whose operators are {names}')
  if architecture[path] not in names:
    raise EffjaxError(f'Derived: choice {path!r} has no operator {architecture[path]!r}: known are {names}')
  return names.index(architecture[path])
