"""NAS-Bench-201: one cell of six edges, 15,625 networks."""
import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence
from types import MappingProxyType

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from effjax.errors import EffjaxError
from effjax.layers.avg_pool import avg_pool
from effjax.layers.batch_norm import BatchNorm
from effjax.layers.block import Block
from effjax.layers.conv import Conv
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense
from effjax.layers.materialize import materialize
from effjax.layers.operations import OPERATIONS
from effjax.search.encoding import Architecture, Space, encode
from effjax.search.mixed import Decisions, Mixed

OPERATORS = ('none', 'skip_connect', 'nor_conv_1x1', 'nor_conv_3x3', 'avg_pool_3x3')
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # from node to node
SPACE: Space = MappingProxyType({f'edges/edge{k}/choice': OPERATORS for k in range(len(EDGES))})


class ReLUConvBN(ConvBN):
  """`y = BatchNorm(conv(relu(x)))`: as `ConvBN`, of which give `activation=None`.

  >>> import jax, jax.numpy as jnp
  >>> ReLUConvBN(4, activation=None).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 8, 8, 4)
  """

  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    return super().__call__(nn.relu(x), train)


class Reduction(Block):
  """`y = conv2(conv1(x)) + shortcut(avg_pool(x))`, `ReLUConvBN`s of 3x3, the first with strides 2; 2x2 pool, 1x1 conv.

  `[n, h, w, cin] -> [n, h / 2, w / 2, features]`, h and w even; nothing is rectified behind the sum.

  Args:
    features: output channels.
    others: as in `Block`.

  >>> import jax, jax.numpy as jnp
  >>> Reduction(4).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 4, 4, 4)
  """
  features: int

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    y = ReLUConvBN(self.features, 3, 2, activation=None, name='conv1', **self.same)(x, train)
    y = ReLUConvBN(self.features, 3, activation=None, name='conv2', **self.same)(y, train)
    return y + Conv(self.features, 1, name='shortcut', **self.same)(avg_pool(x, 2))


class NASBench201(Block):
  """Images to logits: stem, three stages of equal cells with a `Reduction` between them, mean, dense layer.

  A cell has four nodes, `x_j = sum_{i < j} edge_ij(x_i)`; x_0 is what it gets and x_3 what it gives. Edge k is the same
  operator in all cells: the six vectors of the supernet are `edges/edge0/choice` ... `edges/edge5/choice`, in the order
  of `EDGES`, and rules on those six leaves search. Parameters of the operators under `stage1_cell1/edge0/nor_conv_3x3`
  and so on. The network of one architecture is `Derived(NASBench201(), architecture)`.

  Args:
    num_classes: logits.
    features: channels of the first stage; twice as many in each next one.
    cells: per stage.
    operators: on offer, in the order of each vector's entries.
    paths: as in `Choice`.
    auxiliary_skip: whether each edge adds its input times the parameter `auxiliary_skip`, 1 at the start; the rule
      `search.auxiliary_skip` lets it vanish.
    others: as in `Block`.

  Raises:
    EffjaxError: an unknown operator; images whose sides four does not divide.

  With 10 classes the network of an architecture has 73,306 + 243,040 n3x3 + 28,000 n1x1 parameters, and for images of
  32x32 it does 7,783,040 + 35,389,440 n3x3 + 3,932,160 n1x1 multiply-accumulates; the benchmark adds the 10 of a bias.
  An operator that leads nowhere counts too.

  Differs from the paper: padding 'SAME' puts the odd row of strides 2 behind the image; 'symmetric' before it.

  Source: Dong, Yang, "NAS-Bench-201", ICLR 2020, arXiv:2001.00326.

  >>> import jax, jax.numpy as jnp
  >>> net, x = NASBench201(10, features=4, cells=1), jnp.ones((1, 16, 16, 3))
  >>> shapes = jax.eval_shape(lambda key: net.init(key, x, False), jax.random.key(0))
  >>> shapes['params']['edges']['edge5']['choice'].shape, sorted(shapes['params']['stage1_cell1']['edge0'])
  ((5,), ['nor_conv_1x1', 'nor_conv_3x3'])
  """
  num_classes: int = 10
  features: int = 16
  cells: int = 5
  operators: tuple[str, ...] = OPERATORS
  paths: int | None = None
  auxiliary_skip: bool = False
  epsilon: float = dataclasses.field(default=1e-5, kw_only=True)

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, 'n classes']:
    if x.shape[1] % 4 or x.shape[2] % 4:
      raise EffjaxError(f'NASBench201: images of {x.shape[1]} x {x.shape[2]}, wanted multiples of 4: crop or pad them')
    p = self._choices()
    beta = self.param('auxiliary_skip', lambda key: jnp.ones((), jnp.float32)) if self.auxiliary_skip else None
    x = ConvBN(self.features, 3, activation=None, name='stem', **self.same)(x, train)
    for stage in range(3):
      features = self.features * 2 ** stage
      if stage:
        x = Reduction(features, name=f'reduction{stage}', **self.same)(x, train)
      for i in range(self.cells):
        cell = Cell201(features, self.operators, self.paths, name=f'stage{stage + 1}_cell{i + 1}', **self.same)
        x = cell(x, p, train, beta)
    x = BatchNorm(nn.relu, name='bn', **self.same)(x, train)
    return Dense(self.num_classes, name='classifier', **self.same)(x.mean((1, 2)))

  def _choices(self):
    """The weights of each edge's operators."""
    if unknown := [name for name in self.operators if name not in OPERATORS]:
      raise EffjaxError(f'NASBench201: unknown operators {unknown}: known are {OPERATORS}')
    return tuple(Decisions({path.split('/')[1]: self.operators for path in SPACE}, name='edges')().values())


class Cell201(Block):
  """`x_j = sum_{i < j} edge_ij(x_i)` of four nodes, x_0 the input and x_3 the output: the cell of `NASBench201`.

  Args:
    features: channels of x, and of all nodes.
    operators: of each edge.
    paths: as in `Choice`.
    others: as in `Block`.

  Called with the weights of each edge's operators; and with what each edge adds of its input, if anything.

  >>> import jax, jax.numpy as jnp
  >>> cell, x = Cell201(3, ('skip_connect',)), jnp.ones((1, 4, 4, 3))
  >>> cell.apply({}, x, (jnp.ones(1),) * 6, False).max().item()
  4.0
  """
  features: int
  operators: tuple[str, ...]
  paths: int | None = None

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c'], p: Sequence[Float[Array | np.ndarray, ' n_ops']],
               train: bool, auxiliary_skip: Float[Array, ''] | None = None) -> Float[Array, 'n h w c']:
    nodes = [x]
    for j in range(1, 4):
      into = [(k, i) for k, (i, to) in enumerate(EDGES) if to == j]
      ys = [self._edge(k, nodes[i], p[k], train, auxiliary_skip) for k, i in into]
      nodes.append(materialize(functools.reduce(jnp.add, ys)))
    return nodes[3]

  def _edge(self, k, x, p, train, auxiliary_skip):
    y = Mixed(tuple(map(self._operator, self.operators)), self.paths, name=f'edge{k}')(x, p, train)
    return y if auxiliary_skip is None else y + auxiliary_skip.astype(y.dtype) * x

  def _operator(self, name):
    same = dict(name=name, parent=None, **self.same)
    if name.startswith('nor_conv'):
      return ReLUConvBN(self.features, int(name[-1]), activation=None, **same)
    return OPERATIONS[name](self.features, 1, **same)


def parse(text: str) -> Architecture:
  """The architecture that the benchmark writes as `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`: each operator, from its node.

  Raises:
    EffjaxError: a text of another form; an unknown operator.

  >>> parse('|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|')['edges/edge3/choice']
  'skip_connect'
  """
  nodes = [re.findall(r'([^|~+]+)~(\d)\|', node) for node in text.split('+')]
  found = [(name, (int(i), j)) for j, node in enumerate(nodes, 1) for name, i in node]
  architecture = {path: name for path, (name, _) in zip(SPACE, found)}
  if tuple(edge for _, edge in found) != EDGES or to_text(architecture) != text:
    raise EffjaxError(f"NASBench201: {text!r} is no architecture: wanted '|op~0|+|op~0|op~1|+|op~0|op~1|op~2|'")
  encode(SPACE, architecture)
  return architecture


def to_text(architecture: Architecture) -> str:
  """What `parse` reads.

  Raises:
    EffjaxError: as of `encoding.encode`.

  >>> to_text(dict.fromkeys(SPACE, 'none'))
  '|none~0|+|none~0|none~1|+|none~0|none~1|none~2|'
  """
  encode(SPACE, architecture)
  edges = zip(EDGES, (architecture[path] for path in SPACE))
  by_node = itertools.groupby(edges, lambda edge: edge[0][1])
  return '+'.join('|' + ''.join(f'{name}~{i}|' for (i, _), name in node) for _, node in by_node)


def row_of(table: Int[np.ndarray, 'n 6'], architecture: Architecture) -> int:
  """The row of an architecture in a table of encoded ones, whatever order that has.

  Raises:
    EffjaxError: as of `encoding.encode`; an architecture that the table lacks.

  >>> row_of(np.array([[1] * 6, [0] * 6]), dict.fromkeys(SPACE, 'none'))
  1
  """
  found = np.flatnonzero((table == encode(SPACE, architecture)).all(1))
  if not len(found):
    raise EffjaxError(f'NASBench201: {to_text(architecture)} is not among the {len(table)} rows of the table: are its '
                      f'operators numbered as {OPERATORS}?')
  return int(found[0])
