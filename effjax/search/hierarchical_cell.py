"""The network of a hierarchical representation: its graph of primitive operators."""
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.avg_pool import avg_pool
from effjax.layers.block import Block
from effjax.layers.conv_bn import ConvBN
from effjax.layers.max_pool import max_pool
from effjax.layers.operations import Identity, Pooling
from effjax.layers.separable_conv import SeparableConv
from effjax.search.hierarchical import PRIMITIVES, Graph


class HierarchicalCell(Block):
  """The graph as a network: a node is its input, or a 1x1 convolution of its concatenated inputs; y is the last.

  `[n, h, w, c] -> [n, h, w, c]`: all have the channels of x. BatchNorm and ReLU follow every convolution. Parameters
  under `node1_input0` ..., in the order of the graph, and `node1_merge` of nodes with several inputs. Copies of a motif
  share no weights.

  Args:
    graph: of `flatten`.
    others: as in `Block`.

  Raises:
    EffjaxError: an unknown operator; a node that reads itself or a later one.

  Source: Liu et al., ICLR 2018, arXiv:1711.00436, survey [75].

  >>> HierarchicalCell(((('max_pool_3x3', 0),),)).apply({}, jnp.eye(4).reshape(1, 4, 4, 1), False).sum().item()
  14.0
  """
  graph: Graph

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, 'n h w c']:
    states = [x]
    for j, inputs in enumerate(self.graph, 1):
      self._check(j, inputs)
      ys = [self._operator(name, x.shape[-1], f'node{j}_input{k}')(states[i], train)
            for k, (name, i) in enumerate(inputs)]
      states.append(self._merge(j, ys, x, train))
    return states[-1]

  def _merge(self, j, ys, x, train):
    if len(ys) < 2:
      return ys[0] if ys else jnp.zeros_like(x)
    merge = ConvBN(x.shape[-1], 1, activation=nn.relu, name=f'node{j}_merge', **self.same)
    return merge(jnp.concatenate(ys, -1), train)

  def _operator(self, operator, channels, name):
    same = dict(name=name, **self.same)
    if 'pool' in operator:
      return Pooling(max_pool if operator == 'max_pool_3x3' else avg_pool, **same)
    if operator == 'identity':
      return Identity(**same)
    if operator == 'sep_conv_3x3':
      return SeparableConv(channels, activation=nn.relu, **same)
    kernel, groups = (1, 1) if operator == 'conv_1x1' else (3, channels)
    return ConvBN(channels, kernel, groups=groups, activation=nn.relu, **same)

  def _check(self, j, inputs):
    for name, i in inputs:
      if name not in PRIMITIVES:
        raise EffjaxError(f'HierarchicalCell: node {j} has the unknown operator {name!r}: known are {PRIMITIVES}')
      if not 0 <= i < j:
        raise EffjaxError(f'HierarchicalCell: node {j} reads node {i}, known there are 0 to {j - 1}: order the nodes')
