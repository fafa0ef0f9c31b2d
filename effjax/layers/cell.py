"""The cell of searched networks: a small graph of operations that a genotype describes."""
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.block import Block
from effjax.layers.conv_bn import ConvBN
from effjax.layers.drop_path import drop_path
from effjax.layers.factorized_reduce import FactorizedReduce
from effjax.layers.operations import NO_NEW_CHANNELS, OPERATIONS

Edges = tuple[tuple[str, int], ...]


class Genotype(NamedTuple):
  """Two cells: edges (operation, state) in pairs, and the states that the output is made of.

  States 0 and 1 are the outputs of the cell before the previous one and of the previous one; each pair of edges is
  added and makes the next state: 2, 3 ...
  """
  normal: Edges
  normal_concat: tuple[int, ...]
  reduce: Edges
  reduce_concat: tuple[int, ...]


class Cell(Block):
  """`state[2 + k] = a(state[i]) + b(state[j])` for the k-th pair of edges (a, i), (b, j); y concatenates some states.

  x0 and x1 first get `features` channels and the size of x1: `[n, h, w, *] -> [n, h / strides, w / strides,
  features len(concat)]`. Parameters under `fit0`, `fit1`, and `edge0` ... in the order of the edges.

  Args:
    edges, concat: half of a `Genotype`.
    features: channels of every state.
    strides: 2 reduces: of those edges that read states 0 and 1.
    fit: of x0: 'project' by ReLU, 1x1 convolution and BatchNorm, as x1 always is; 'reduce' by `FactorizedReduce`,
      where x0 is twice as high and wide; 'none' leaves its channels, which those edges then change that do not anyhow:
      so begin NASNets, whose first cell reads the stem twice.
    drop_path: rate, in training, at which each edge but an identity is dropped per example; it may be traced.
    others: as in `Block`.

  Raises:
    EffjaxError: an odd number of edges, an unknown operation, an edge from or an output of a state that is not there,
      an unknown fit.

  Source: Zoph, Vasudevan, Shlens, Le, 2018, arXiv:1707.07012, survey [6]; written as in DARTS, survey [68].

  >>> import jax
  >>> cell = Cell((('skip_connect', 0), ('max_pool_3x3', 1)), (1, 2), features=4)
  >>> x0, x1 = jnp.ones((1, 8, 8, 3)), jnp.ones((1, 8, 8, 5))
  >>> cell.init_with_output(jax.random.key(0), x0, x1, False)[0].shape
  (1, 8, 8, 8)
  """
  edges: Edges
  concat: tuple[int, ...]
  features: int
  strides: int = 1
  fit: str = 'project'
  drop_path: float | Float[Array, ''] = 0.

  @nn.compact
  def __call__(self, x0: Float[Array, 'n h0 w0 c0'], x1: Float[Array, 'n h w c1'],
               train: bool) -> Float[Array, 'n h2 w2 c']:
    self._check()
    states = [self._fitted(x0, train), self._project('fit1', nn.relu(x1), train)]
    for k in range(0, len(self.edges), 2):
      states.append(self._edge(k, states, train) + self._edge(k + 1, states, train))
    return jnp.concatenate([self._output(i, states[i], train) for i in self.concat], -1)

  def _project(self, name, x, train):
    return ConvBN(self.features, 1, activation=None, name=name, **self.same)(x, train)

  def _fitted(self, x, train):
    if self.fit == 'none':
      return x
    if self.fit == 'reduce':
      return FactorizedReduce(self.features, name='fit0', **self.same)(x, train)
    return self._project('fit0', nn.relu(x), train)

  def _edge(self, k, states, train):
    name, i = self.edges[k]
    strides = self.strides if i < 2 else 1
    y = OPERATIONS[name](self.features, strides, name=f'edge{k}', **self.same)(states[i], train)
    kept = name == 'skip_connect' and strides == 1
    if i == 0 and self.fit == 'none' and name in NO_NEW_CHANNELS and (kept or name != 'skip_connect'):
      y = self._project(f'edge{k}_fit', nn.relu(y) if kept else y, train)
    never = isinstance(self.drop_path, float) and self.drop_path == 0
    return y if kept or never or not train else drop_path(self.make_rng('dropout'), y, self.drop_path)

  def _output(self, i, x, train):
    return self._project('output0_fit', x, train) if i == 0 and self.fit == 'none' else x

  def _check(self):
    where, n = f'Cell {"/".join(self.path) or "(top)"}', 2 + len(self.edges) // 2
    if len(self.edges) % 2:
      raise EffjaxError(f'{where}: {len(self.edges)} edges, wanted pairs: give each state two')
    if self.fit not in ('none', 'project', 'reduce'):
      raise EffjaxError(f"{where}: fit {self.fit!r} is unknown: choose 'none', 'project' or 'reduce'")
    for k, (name, i) in enumerate(self.edges):
      if name not in OPERATIONS:
        raise EffjaxError(f'{where}: edge {k} has the unknown operation {name!r}: known are {sorted(OPERATIONS)}')
      if not 0 <= i < 2 + k // 2:
        raise EffjaxError(f'{where}: edge {k} reads state {i}, known there are 0 to {1 + k // 2}: order the pairs')
    if missing := [i for i in self.concat if not 0 <= i < n]:
      raise EffjaxError(f'{where}: states {missing} of concat are not there: there are 0 to {n - 1}')
