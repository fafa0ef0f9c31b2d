"""DARTS: the supernet of two cells, and PC-DARTS' cheaper one."""
import dataclasses
import math

import flax.linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.block import Block
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense
from effjax.search.mixed_cell import EDGES, LOOPS, NODES, CellWeights, MixedCell
from effjax.tree import Path, PyTree

OPERATORS = ('none', 'max_pool_3x3', 'avg_pool_3x3', 'skip_connect', 'sep_conv_3x3', 'sep_conv_5x5', 'dil_conv_3x3',
             'dil_conv_5x5')
KINDS = ('normal', 'reduce')


def edge_names() -> dict[Path, tuple[int, int]]:
  """(state that is read, state that it adds to) of each choice of `DARTSSpace`, numbered as in `layers.Genotype`.

  >>> list(edge_names().items())[13:15]
  [('normal/edge13/choice', (4, 5)), ('reduce/edge0/choice', (0, 2))]
  """
  return {f'{kind}/edge{k}/choice': edge for kind in KINDS for k, edge in enumerate(EDGES)}


def count_cells(nodes: int = NODES, operators: int = 7) -> int:
  """How many cells can be derived: `prod_{k=1..nodes} C(k + 1, 2) operators^2`, two inputs of each node.

  Many of these are one function written otherwise. A pair of cells has the square.

  Args:
    operators: besides none.

  >>> count_cells(), f'{count_cells() ** 2:.4e}'
  (1037664180, '1.0767e+18')
  """
  return math.prod(math.comb(k + 1, 2) * operators ** 2 for k in range(1, nodes + 1))


def unstacked(variables: PyTree) -> PyTree:
  """Parameters, statistics or both of a supernet with `scan=True`, as the same supernet without it has them.

  Everything else stays: `cell1/edges/sep_conv_3x3` becomes `cell1/edge0/sep_conv_3x3` to `cell1/edge13/sep_conv_3x3`.

  Raises:
    EffjaxError: nothing is stacked.

  >>> import jax.numpy as jnp
  >>> sorted(unstacked({'cell3': {'inner': {'a': jnp.ones((6, 2))}}})['cell3'])
  ['edge11', 'edge12', 'edge13', 'edge4', 'edge7', 'edge8']
  """
  flat, found = flatten_dict(variables), {}
  for path, x in flat.items():
    at = next((m for m, name in enumerate(path) if name in LOOPS), None)
    edges = {path: x} if at is None else {
        (*path[:at], f'edge{k}', *path[at + 1:]): x[n] for n, k in enumerate(LOOPS[path[at]])}
    found |= edges
  if len(found) == len(flat):
    raise EffjaxError(f'unstacked: none of {len(flat)} leaves is under {tuple(LOOPS)}: give the variables of a '
                      'DARTSSpace with scan=True')
  return unflatten_dict(found)


class DARTSSpace(Block):
  """Images to logits: stem, cells whose edges are sums of operators, mean, dense layer.

  Cells reduce after a third and two thirds of them, and double the channels. Edge k is the same sum in all cells of a
  kind: the vectors are `normal/edge0/choice` ... `normal/edge13/choice` and `reduce/...`, of which those are there that
  a cell needs: both kinds from three cells on. Other parameters under `stem1`, `cell1/fit0`, `cell1/fit1`,
  `cell1/edge0/sep_conv_3x3`, `classifier`.

  Args:
    num_classes: logits.
    features: channels of a state of the first cell; the stem has three times, a cell's output four times as many.
    cells: how many.
    operators: on offer, in the order of each vector's entries.
    partial: K of PC-DARTS: the first 1/K of an edge's channels go through the operators, the others past them, where
      the cell reduces through a 2x2 max pool; then channels are shuffled. Above 1 the edges into a state are weighed
      too, by `normal/node2_edges` ...: put `search.softmax` on `.*(choice|edges)` for the paper's edge normalisation.
      These are no `choice`: a state keeps two of its edges, where the rule with `key=None` would keep one.
    paths: as in `Choice`.
    scan: the edges of a cell run in a loop, and keep nothing for the backward pass but what they read: a step compiles
      faster, takes less memory, and is the same up to rounding. Parameters of all edges of a loop are stacked, under
      `cell1/edges`, and in a cell that reduces under `outer` (edges that do) and `inner`. Derive, profile and export
      with False, on the `unstacked` ones: `effjax.graph` does not see which entry guards which edge.
    affine: whether BatchNorm in cells has a scale and a bias. Without them no operator can hide its weight in those.
    others: as in `Block`.

  Raises:
    EffjaxError: an unknown operator; no cells; features that `partial` does not divide.

  Differs from the paper: padding as in `Block`; average pools do not count what is not there, as in its code.

  Source: Liu, Simonyan, Yang, "DARTS", ICLR 2019, arXiv:1806.09055, survey [68]; Xu et al., "PC-DARTS", ICLR 2020,
  arXiv:1907.05737.

  >>> import jax, jax.numpy as jnp
  >>> net, x = DARTSSpace(10, features=4, cells=1, operators=('none', 'sep_conv_3x3')), jnp.ones((1, 16, 16, 3))
  >>> params = jax.eval_shape(lambda key: net.init(key, x, False), jax.random.key(0))['params']
  >>> sorted(params), params['reduce']['edge13']['choice'].shape
  (['cell1', 'classifier', 'reduce', 'stem1'], (2,))
  """
  num_classes: int = 10
  features: int = 16
  cells: int = 8
  operators: tuple[str, ...] = OPERATORS
  partial: int = 1
  paths: int | None = None
  scan: bool = False
  affine: bool = dataclasses.field(default=False, kw_only=True)
  epsilon: float = dataclasses.field(default=1e-5, kw_only=True)

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, 'n classes']:
    self._check()
    kinds = [KINDS[i in (self.cells // 3, 2 * self.cells // 3)] for i in range(self.cells)]
    weights = {kind: CellWeights(self.operators, self.partial > 1, name=kind)() for kind in KINDS if kind in kinds}
    x = ConvBN(3 * self.features, 3, activation=None, name='stem1', **self.same | {'affine': True})(x, train)
    x0, x1, features = x, x, self.features
    for i, kind in enumerate(kinds):
      strides = 1 + KINDS.index(kind)
      features, reduced = features * strides, i > 0 and kinds[i - 1] == 'reduce'
      now = MixedCell(features, self.operators, strides, reduced, self.partial, self.paths, self.scan,
                      name=f'cell{i + 1}', **self.same)
      x0, x1 = x1, now(x0, x1, *weights[kind], train)
    return Dense(self.num_classes, name='classifier', **self.same)(x1.mean((1, 2)))

  def _check(self):
    if unknown := [name for name in self.operators if name not in OPERATORS]:
      raise EffjaxError(f'DARTSSpace: unknown operators {unknown}: known are {OPERATORS}')
    if self.cells < 1:
      raise EffjaxError(f'DARTSSpace: {self.cells} cells, wanted 1 or more, 3 for both kinds')
    if self.partial < 1 or self.features % self.partial:
      raise EffjaxError(f'DARTSSpace: partial={self.partial} does not divide features={self.features}: choose another')
