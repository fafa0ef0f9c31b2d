"""The cell of a search: states that are sums over edges, each edge a sum of operators."""
import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax.layers.batch_norm import BatchNorm
from effjax.layers.block import Block
from effjax.layers.channel_shuffle import channel_shuffle
from effjax.layers.conv_bn import ConvBN
from effjax.layers.factorized_reduce import FactorizedReduce
from effjax.layers.materialize import materialize
from effjax.layers.max_pool import max_pool
from effjax.layers.operations import OPERATIONS
from effjax.search.mixed import Decision, Mixed

NODES = 4
EDGES = tuple((i, j) for j in range(2, 2 + NODES) for i in range(j))  # from state to state; 0 and 1 are the inputs
LOOPS = {'edges': tuple(range(len(EDGES))), 'outer': tuple(k for k, (i, _) in enumerate(EDGES) if i < 2),
         'inner': tuple(k for k, (i, _) in enumerate(EDGES) if i > 1)}  # the edges of each loop of a cell with `scan`


class CellWeights(nn.Module):
  """The weights that all cells of a kind share: of each edge's operators, and of the edges into each state or None.

  Args:
    operators: of every edge: parameters `edge0/choice` ...
    normalize: whether edges are weighed: parameters `node2_edges` ..., equal at the start.

  >>> import jax
  >>> p, q = CellWeights(('none', 'skip_connect'), True).init_with_output(jax.random.key(0))[0]
  >>> len(p), q[0]
  (14, Array([0.5, 0.5], dtype=float32))
  """
  operators: tuple[str, ...]
  normalize: bool = False

  @nn.compact
  def __call__(self) -> tuple[tuple[Float[Array | np.ndarray, ' n_ops'], ...], tuple[Float[Array, ' _'], ...] | None]:
    p = tuple(Decision(self.operators, name=f'edge{k}')() for k in range(len(EDGES)))
    equal = lambda j: self.param(f'node{j}_edges', lambda key: jnp.full(j, 1 / j, jnp.float32))
    return p, tuple(equal(j) for j in range(2, 2 + NODES)) if self.normalize else None


class MixedCell(Block):
  """`state[j] = sum_{i < j} [q_ji] edge_ij(state[i])`, states 2 to 5 concatenated; edges are `Mixed` operators.

  `[n, h, w, *] -> [n, h / strides, w / strides, 4 features]`; x0 and x1 get `features` channels first, as in `Cell`,
  whose parameters under `fit0` and `fit1` these are too.

  Args:
    features: channels of every state.
    operators: of every edge.
    strides: 2 reduces: of those edges that read states 0 and 1.
    reduced: whether x0 is twice as high and wide as x1.
    partial, paths, scan: as in `DARTSSpace`.
    others: as in `Block`.

  Called with p, the weights of each edge's operators, and q, those of the edges into each state, or None.

  Source: Liu, Simonyan, Yang, "DARTS", ICLR 2019, arXiv:1806.09055, survey [68].

  >>> import jax
  >>> cell, x = MixedCell(4, ('skip_connect', 'sep_conv_3x3'), partial=2), jnp.ones((1, 8, 8, 3))
  >>> cell.init_with_output(jax.random.key(0), x, x, (jnp.ones(2),) * 14, None, False)[0].shape
  (1, 8, 8, 16)
  """
  features: int
  operators: tuple[str, ...]
  strides: int = 1
  reduced: bool = False
  partial: int = 1
  paths: int | None = None
  scan: bool = False

  @nn.compact
  def __call__(self, x0: Float[Array, 'n h0 w0 c0'], x1: Float[Array, 'n h w c1'],
               p: Sequence[Float[Array | np.ndarray, ' n_ops']], q: Sequence[Float[Array, ' _']] | None,
               train: bool) -> Float[Array, 'n h2 w2 c']:
    fit = lambda name, x: ConvBN(self.features, 1, activation=None, name=name, **self.same)(nn.relu(x), train)
    half = lambda x: FactorizedReduce(self.features, name='fit0', **self.same)(x, train)
    states = [half(x0) if self.reduced else fit('fit0', x0), fit('fit1', x1)]
    if self.scan:
      return jnp.concatenate(list(self._scanned(jnp.stack(states), p, q, train)), -1)
    for j in range(2, 2 + NODES):
      into = [(i, k) for k, (i, to) in enumerate(EDGES) if to == j]
      mixed = [(self._mixed(i, name=f'edge{k}'), p[k]) for i, k in into]
      ys = [self._edge(lambda x, op=op, p=p: op(x, p, train), x) for (op, p), x in zip(mixed, states, strict=True)]
      ys = ys if q is None else [q[j - 2][i].astype(y.dtype) * y for i, y in enumerate(ys)]
      states.append(materialize(functools.reduce(jnp.add, ys)))
    return jnp.concatenate(states[2:], -1)

  def _scanned(self, inputs, p, q, train):
    """The states 2 to 5, from a loop over edges, or two: those that reduce read other images than they add to."""
    p, q = jnp.stack(p), q if q is None else jnp.stack([q[j - 2][i] for i, j in EDGES])
    if self.strides == 1:
      return self._loop('edges', None, jnp.pad(inputs, ((0, NODES), *[(0, 0)] * 4)), p, q, train)[2:]
    n, h, w, c = inputs.shape[1:]
    states = jnp.zeros((2 + NODES, n, -(-h // 2), -(-w // 2), c), inputs.dtype)
    states = self._loop('outer', inputs, states, p, q, train)
    return self._loop('inner', None, states, p, q, train)[2:]

  def _loop(self, name, inputs, states, p, q, train):
    """The states and, one after another, edges added to them; these read `inputs`, or without them the states."""
    edges = np.array(LOOPS[name], np.int32)
    # Without remat the intermediate results of all edges are kept.
    of_edge = nn.remat(lambda mixed, x, p: self._edge(lambda x: mixed(x, p, train), x), prevent_cse=False)

    def body(mixed, states, each):
      (i, j), p, q = each
      y = of_edge(mixed, states[i] if inputs is None else inputs[i], p)
      return states.at[j].add(y if q is None else q.astype(y.dtype) * y), None

    each = np.array(EDGES, np.int32)[edges], p[edges], None if q is None else q[edges]
    scan = nn.scan(body, {'params': 0, 'batch_stats': 0}, split_rngs={'params': True})
    return scan(self._mixed(0 if inputs is not None else 2, name=name), states, each)[0]

  def _mixed(self, i, **how):
    """The operators of an edge that reads state i."""
    strides, some = self.strides if i < 2 else 1, self.features // self.partial
    return Mixed(tuple(self._operator(name, some, strides) for name in self.operators), self.paths, **how)

  def _edge(self, operate, x):
    """The sum of operators, of some of the channels if only they go through it."""
    if self.partial == 1:
      return operate(x)
    some = self.features // self.partial
    y, past = operate(x[..., :some]), x[..., some:]
    past = past if y.shape[1:3] == past.shape[1:3] else max_pool(past, 2, 2, 'SAME')
    return channel_shuffle(jnp.concatenate([y, past], -1), self.partial)

  def _operator(self, name, features, strides):
    if 'pool' in name:
      return PoolBN(name, strides, name=name, parent=None, **self.same)
    return OPERATIONS[name](features, strides, name=name, parent=None, **self.same)


class PoolBN(Block):
  """`y = BatchNorm(pool(x))`: without it a pool's output is larger than that of the other operators.

  Args:
    operation: 'max_pool_3x3' or 'avg_pool_3x3'.
    strides: in both directions.
    others: as in `Block`.

  >>> import jax
  >>> PoolBN('max_pool_3x3', 2).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 4, 4, 3)
  """
  operation: str
  strides: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, 'n h2 w2 c']:
    y = OPERATIONS[self.operation](x.shape[-1], self.strides, name='pool', **self.same)(x, train)
    return BatchNorm(name='bn', **self.same)(y, train)
