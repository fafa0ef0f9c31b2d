"""DARTS' networks: Liu, Simonyan, Yang, ICLR 2019, arXiv:1806.09055, survey [68]; and cells of its successors.

P-DARTS (arXiv:1904.12760), PC-DARTS (arXiv:1907.05737) and GDAS (arXiv:1910.04465) train their cells in these networks.
"""
import dataclasses
import functools

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.auxiliary_head import AuxiliaryHead
from effjax.layers.cell import Cell, Genotype
from effjax.layers.conv_bn import ConvBN
from effjax.models import genotypes
from effjax.models.network import Network
from effjax.models.variant import Variant


class DARTS(Network):
  """Cells of a genotype, twice as many channels after a third and two thirds of them, where the cell reduces.

  On CIFAR a 3x3 stem of 3 `features` channels. On ImageNet three 3x3 convolutions with strides 2 come first; the paper
  prints 574 million multiply-accumulates for DARTS_V2 there, where this network, of its 4.7 million parameters, has
  529.9 million. In training with `auxiliary` the output is (logits, [those of a head behind the second reduction]).
  Intermediates: `stage1`, `stage2`, `stage3`, `features`, `pooled`.

  Args:
    genotype: of its cells.
    features: channels of a state of the first cell; `width` multiplies them.
    cells: how many.
    imagenet: the stem.
    auxiliary: a head for training: DARTS gives its loss 0.4.
    drop_path: rate, as in `Cell`: up to 0.2 on CIFAR-10, rising linearly with the epochs.
    others: as in `Network`.

  Raises:
    EffjaxError: a genotype that is none, as in `Cell`.

  >>> import jax, jax.numpy as jnp
  >>> net = DARTS(10, features=4, cells=3)
  >>> jax.eval_shape(lambda key: net.init_with_output(key, jnp.ones((1, 32, 32, 3)), False)[0], jax.random.key(0)).shape
  (1, 10)
  """
  genotype: Genotype = genotypes.DARTS_V2
  features: int = 36
  cells: int = 20
  imagenet: bool = False
  auxiliary: bool = False
  drop_path: float | Float[Array, ''] = 0.
  epsilon: float = dataclasses.field(default=1e-5, kw_only=True)

  @property
  def stride(self) -> int:
    """Of the last features: the least height and width."""
    return 32 if self.imagenet else 4

  def forward(self, x, train):
    """Stem, cells, head."""
    channels, reduced, auxiliary = max(2, round(self.features * self.width)), self.imagenet, []
    stages = (self.cells // 3, 2 * self.cells // 3, self.cells)  # where they end
    x0, x1 = self._stem(x, channels, train)
    for i in range(self.cells):
      reduce = i in stages
      channels *= 2 if reduce else 1
      x0, x1, reduced = x1, self._cell(i, reduce, reduced, channels)(x0, x1, train), reduce
      x1 = self.mark(f'stage{stages.index(i + 1) + 1}', x1) if i + 1 in stages else x1
      if i == stages[1] and self.auxiliary and (train or self.is_initializing()):
        head = AuxiliaryHead(self.num_classes, 2 if self.imagenet else 3, not self.imagenet, name='auxiliary_head',
                             **self.same)
        auxiliary = [head(x1, train)]
    logits = self.classify(self.mark('features', x1))
    return (logits, auxiliary) if self.auxiliary and train else logits

  def _cell(self, i, reduce, reduced, channels):
    g = self.genotype
    edges, concat = (g.reduce, g.reduce_concat) if reduce else (g.normal, g.normal_concat)
    return Cell(edges, concat, channels, 2 if reduce else 1, 'reduce' if reduced else 'project', self.drop_path,
                name=f'cell{i + 1}', **self.same)

  def _stem(self, x, channels, train):
    layer = lambda features, strides, i, activation=None: ConvBN(features, 3, strides, activation=activation,
                                                                  name=f'stem{i}', **self.same)
    if not self.imagenet:
      x = layer(3 * channels, 1, 1)(x, train)
      return x, x
    x = layer(channels // 2, 2, 1, nn.relu)(x, train)
    x = layer(channels, 2, 2)(x, train)
    return x, layer(channels, 2, 3)(nn.relu(x), train)


def _cifar(genotype, paper):
  return Variant(functools.partial(DARTS, num_classes=10, genotype=genotype), 32, paper)


def _imagenet(genotype, paper):
  return Variant(functools.partial(DARTS, features=48, cells=14, imagenet=True, genotype=genotype), 224, paper)


VARIANTS = {
    'darts_v1_cifar': _cifar(genotypes.DARTS_V1, '3.3 M'),
    'darts_v2_cifar': _cifar(genotypes.DARTS_V2, '3.3 M'),
    'darts_v2_imagenet': _imagenet(genotypes.DARTS_V2, '4.7 M, 574 M'),
    'gdas_v1_cifar': _cifar(genotypes.GDAS_V1, '3.4 M'),
    'p_darts_cifar': _cifar(genotypes.P_DARTS, '3.4 M'),
    'p_darts_imagenet': _imagenet(genotypes.P_DARTS, '4.9 M, 557 M'),
    'pc_darts_cifar': _cifar(genotypes.PC_DARTS_CIFAR, '3.6 M'),
    'pc_darts_imagenet': _imagenet(genotypes.PC_DARTS_IMAGENET, '5.3 M, 597 M')}
