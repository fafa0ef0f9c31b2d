"""The micro space of ENAS: cells whose nodes choose two inputs and two operators."""
import dataclasses
import functools
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.batch_norm import BatchNorm
from effjax.layers.block import Block
from effjax.layers.conv import Conv
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense
from effjax.layers.factorized_reduce import FactorizedReduce
from effjax.layers.operations import OPERATIONS
from effjax.search.mixed import Decisions, Mixed

OPERATORS = ('sep_conv_3x3', 'sep_conv_5x5', 'avg_pool_3x3', 'max_pool_3x3', 'skip_connect')
KINDS = ('normal', 'reduce')
SIDES = (1, 2)


class ENASMicro(Block):
  """Images to logits: stem, cells, mean, dense layer; cells reduce after a third and two thirds of them.

  Node j of a cell, j = 2, 3 ..., chooses twice: one of the states 0 to j - 1, and what runs on it. So each kind of cell
  has the vectors `normal/node2_input1/choice`, `normal/node2_operator1/choice`, `normal/node2_input2/choice`,
  `normal/node2_operator2/choice` and so on, shared by all cells of that kind; both kinds are there from three cells on.
  Other parameters under `stem`, `cell1` ... (of `MicroCell`), `classifier`. The network of one architecture is
  `Derived(ENASMicro(...), architecture)`; its parameters are some of these.

  Args:
    num_classes: logits.
    features: channels of the first cells; the stem has three times as many, and each reduction doubles them.
    cells: how many.
    nodes: of a cell, beside its two inputs.
    operators: on offer, in the order of each vector's entries.
    paths: as in `Choice`, of the operators: each node still runs one on every state that it could read.
    others: as in `Block`.

  Raises:
    EffjaxError: an unknown operator; no cells; no nodes.

  The choices of a kind can be made in `prod_{k=1..nodes} (operators (k + 1))^2` ways, 2.6e25 for both. The paper's
  (5 * 5!)^4 = 1.3e11 counts one operator for all nodes of a side, and for node k of 5 k inputs, not k + 1.

  Differs from the paper: its code also adds an input that nothing reads to a cell's output, and gives an input a 1x1
  convolution only if its channels differ. In its search code a reduction halves the inputs beforehand; here, as in the
  networks that it trains, the operators on states 0 and 1 have strides 2.

  Source: Pham, Guan, Zoph, Le, Dean, "Efficient neural architecture search via parameter sharing", ICML 2018,
  arXiv:1802.03268, survey [65].

  >>> import jax
  >>> net, x = ENASMicro(10, features=4, cells=1, nodes=2), jnp.ones((1, 8, 8, 3))
  >>> params = jax.eval_shape(lambda key: net.init(key, x, False), jax.random.key(0))['params']
  >>> {name: leaf['choice'].shape for name, leaf in params['reduce'].items() if name.endswith('1')}
  {'node2_input1': (2,), 'node2_operator1': (5,), 'node3_input1': (3,), 'node3_operator1': (5,)}
  """
  num_classes: int = 10
  features: int = 20
  cells: int = 8
  nodes: int = 5
  operators: tuple[str, ...] = OPERATORS
  paths: int | None = None
  epsilon: float = dataclasses.field(default=1e-5, kw_only=True)

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, 'n classes']:
    self._check()
    kinds = [KINDS[i in (self.cells // 3, 2 * self.cells // 3)] for i in range(self.cells)]
    decisions = {kind: Decisions(choices(self.nodes, self.operators), name=kind)() for kind in KINDS if kind in kinds}
    x = ConvBN(3 * self.features, 3, activation=None, name='stem', **self.same)(x, train)
    x0, x1, features = x, x, self.features
    for i, kind in enumerate(kinds):
      strides = 1 + KINDS.index(kind)
      features, reduced = features * strides, i > 0 and kinds[i - 1] == 'reduce'
      cell = MicroCell(features, self.operators, self.nodes, strides, reduced, self.paths, name=f'cell{i + 1}',
                       **self.same)
      x0, x1 = x1, cell(x0, x1, decisions[kind], train)
    return Dense(self.num_classes, name='classifier', **self.same)(nn.relu(x1).mean((1, 2)))

  def _check(self):
    if unknown := [name for name in self.operators if name not in OPERATIONS]:
      raise EffjaxError(f'ENASMicro: unknown operators {unknown}: known are {tuple(OPERATIONS)}')
    if self.cells < 1 or self.nodes < 1:
      raise EffjaxError(f'ENASMicro: {self.cells} cells of {self.nodes} nodes, wanted 1 or more of each, 3 cells for '
                        'both kinds')


def choices(nodes: int = 5, operators: tuple[str, ...] = OPERATORS) -> dict[str, tuple[str, ...]]:
  """The choices of one cell, by name: of each node's two inputs, and of the operators on them.

  >>> choices(1, ('skip_connect',))['node2_input1'], len(choices())
  (('state0', 'state1'), 20)
  """
  of = lambda j: {'input': tuple(f'state{i}' for i in range(j)), 'operator': operators}
  return {f'node{j}_{what}{side}': names
          for j in range(2, 2 + nodes) for side in SIDES for what, names in of(j).items()}


class MicroCell(Block):
  """`state[j] = sum_{side=1,2} sum_{i<j} q_i sum_o p_o op_o(state[i])`, q and p of that node and side; then loose ends.

  `y = BatchNorm(sum_j loose_j conv_j(relu(state[j])))` over nodes, `loose_j = prod sum_{i != j} q_i` over all choices
  that could read state j. With one-hots that is a 1x1 convolution of the concatenated states that nothing reads.
  `[n, h, w, *] -> [n, h / strides, w / strides, features]`; x0 and x1, states 0 and 1, get `features` channels first.

  As in the paper, an operator has other weights on each state, at each node and side:
  `node3_side1_state2/sep_conv_3x3` and so on; others under `fit0`, `fit1`, `output2` ..., `output_bn`.

  Args:
    features: channels of every state, and of y.
    operators, nodes, paths: as in `ENASMicro`.
    strides: 2 reduces: of those operators that read states 0 and 1.
    reduced: whether x0 is twice as high and wide as x1.
    others: as in `Block`.

  Called with the vectors of `choices`, by name. A constant vector (NumPy's) is a choice that has been made: only its
  largest entry is traced. `effjax.graph` sees that q and p guard an operator, and `shrink` what is a loose end; but a
  cost counts all of the convolutions `output2` ..., those of states that are read too.

  Source: Pham et al., ICML 2018, arXiv:1802.03268, survey [65].

  >>> import jax
  >>> cell, x = MicroCell(4, ('skip_connect', 'max_pool_3x3'), 1), jnp.ones((1, 8, 8, 3))
  >>> p = dict.fromkeys(choices(1), jnp.full(2, .5))
  >>> cell.init_with_output(jax.random.key(0), x, x, p, False)[0].shape
  (1, 8, 8, 4)
  """
  features: int
  operators: tuple[str, ...] = OPERATORS
  nodes: int = 5
  strides: int = 1
  reduced: bool = False
  paths: int | None = None

  @nn.compact
  def __call__(self, x0: Float[Array, 'n h0 w0 c0'], x1: Float[Array, 'n h w c1'],
               p: Mapping[str, Float[Array | np.ndarray, ' _']], train: bool) -> Float[Array, 'n h2 w2 features']:
    fit = lambda name, x: ConvBN(self.features, 1, activation=None, name=name, **self.same)(nn.relu(x), train)
    half = lambda x: FactorizedReduce(self.features, name='fit0', **self.same)(x, train)
    states = [half(x0) if self.reduced else fit('fit0', x0), fit('fit1', x1)]
    for j in range(2, 2 + self.nodes):
      sides = [self._side(j, side, states, p[f'node{j}_input{side}'], p[f'node{j}_operator{side}'], train)
               for side in SIDES]
      states.append(functools.reduce(jnp.add, sides))
    return self._output(states, p, train)

  def _side(self, j, side, states, q, p, train):
    """What node j reads on one side: the sum over states that it could read."""
    def edge(i):
      strides = self.strides if i < 2 else 1
      same = dict(parent=None, **self.same)
      ops = tuple(OPERATIONS[name](self.features, strides, name=name, **same) for name in self.operators)
      return Mixed(ops, self.paths, name=f'node{j}_side{side}_state{i}')(states[i], p, train)
    if isinstance(q, np.ndarray):
      return edge(int(q.argmax()))
    return functools.reduce(jnp.add, [_times(q[i], edge(i)) for i in range(j)])

  def _output(self, states, p, train):
    parts = []
    for j in range(2, 2 + self.nodes):
      later = [p[f'node{k}_input{side}'] for k in range(j + 1, 2 + self.nodes) for side in SIDES]
      if not any(isinstance(q, np.ndarray) and q.argmax() == j for q in later):
        y = Conv(self.features, 1, name=f'output{j}', **self.same)(nn.relu(states[j]))
        parts.append(_loose(j, [q for q in later if not isinstance(q, np.ndarray)], y.dtype) * y)
    return BatchNorm(name='output_bn', **self.same)(functools.reduce(jnp.add, parts), train)


def _loose(j, inputs, dtype):
  """The weight of state j in the output, [1, 1, 1, 1]: the probability that none of these choices takes it.

  Each entry multiplies an array of its own, and not `1 - q_j` the sum: so `effjax.graph` sees which choices end it.
  """
  loose = jnp.ones((1, 1, 1, 1), dtype)
  for q in inputs:
    loose = functools.reduce(jnp.add, [_times(q[i], loose) for i in range(len(q)) if i != j])
  return loose


def _times(weight, y):
  return weight.astype(y.dtype) * y
