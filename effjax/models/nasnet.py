"""NASNet-A: Zoph, Vasudevan, Shlens, Le, CVPR 2018, arXiv:1707.07012, survey [6]."""
import functools

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.auxiliary_head import AuxiliaryHead
from effjax.layers.cell import Cell, Genotype
from effjax.layers.conv_bn import ConvBN
from effjax.models import genotypes
from effjax.models.network import Network
from effjax.models.variant import Variant


class NASNet(Network):
  """Three times `repeats` normal cells of F, 2F and 4F channels, reducing cells between: "NASNet-A (repeats @ 24F)".

  On ImageNet a 3x3 stem with strides 2 and two reducing cells of F/4 and F/2 channels come first; on CIFAR the stem
  alone, and the first cell reads it twice. In training with `auxiliary` the output is (logits, [those of a head before
  the second reduction]). Intermediates: `stage1`, `stage2`, `stage3`, `features`, `pooled`.

  Args:
    genotype: of its cells.
    features: F; `width` multiplies it.
    repeats: normal cells in each third.
    stem: channels of the first convolution.
    imagenet: the stem.
    skip_reduction: the cell after a reduction reads, besides it, what the reduction read as state 0 and not as state 1:
      so on ImageNet in the large network.
    auxiliary: a head for training, whose loss counts 0.4 times.
    drop_path: rate, as in `Cell`, of the last cell; before it in proportion to the cell's number (scheduled drop path,
      where it also rises linearly with the steps).
    others: as in `Network`.

  Raises:
    EffjaxError: a genotype that is none, as in `Cell`.

  >>> import jax, jax.numpy as jnp
  >>> net = NASNet(10, features=4, repeats=1, stem=8)
  >>> jax.eval_shape(lambda key: net.init_with_output(key, jnp.ones((1, 32, 32, 3)), False)[0], jax.random.key(0)).shape
  (1, 10)
  """
  genotype: Genotype = genotypes.NASNET_A
  features: int = 44
  repeats: int = 4
  stem: int = 32
  imagenet: bool = True
  skip_reduction: bool = False
  auxiliary: bool = False
  drop_path: float | Float[Array, ''] = 0.

  @property
  def stride(self) -> int:
    """Of the last features: the least height and width."""
    return 32 if self.imagenet else 4

  def forward(self, x, train):
    """Stem, cells, head."""
    plan, auxiliary = self._plan(), []
    x0 = x1 = self._stem()(x, train)
    level0 = level1 = 0  # reductions so far
    for i, (reduce, scale) in enumerate(plan):
      out = self._cell(i, len(plan), reduce, scale, 'none' if i == 0 else 'reduce' if level0 < level1 else 'project')(
          x0, x1, train)
      if not (reduce and self.skip_reduction and scale > 1):
        x0, level0 = x1, level1
      x1, level1 = out, level1 + reduce
      if not reduce and (i + 1 == len(plan) or plan[i + 1][0]):
        x1 = self.mark(f'stage{scale.bit_length()}', x1)  # of scale 1, 2, 4
      if i == len(plan) - self.repeats - 2 and self.auxiliary and (train or self.is_initializing()):
        auxiliary = [AuxiliaryHead(self.num_classes, name='auxiliary_head', **self.same)(x1, train)]
    logits = self.classify(self.mark('features', nn.relu(x1)))
    return (logits, auxiliary) if self.auxiliary and train else logits

  def _plan(self):
    """(whether it reduces, its channels in F) of each cell."""
    stem = [(True, 1 / 4), (True, 1 / 2)] if self.imagenet else []
    normal = [[(False, scale)] * self.repeats for scale in (1, 2, 4)]
    return [*stem, *normal[0], (True, 2), *normal[1], (True, 4), *normal[2]]

  def _stem(self):
    strides, padding = (2, 'VALID') if self.imagenet else (1, self.padding)
    return ConvBN(max(1, round(self.stem * self.width)), 3, strides, activation=None, name='stem',
                  **{**self.same, 'padding': padding})

  def _cell(self, i, cells, reduce, scale, fit):
    g, features = self.genotype, max(2, int(round(self.features * self.width) * scale))
    edges, concat = (g.reduce, g.reduce_concat) if reduce else (g.normal, g.normal_concat)
    never = isinstance(self.drop_path, float) and self.drop_path == 0
    return Cell(edges, concat, features, 2 if reduce else 1, fit, 0. if never else self.drop_path * (i + 1) / cells,
                name=f'cell{i + 1}', **self.same)


VARIANTS = {
    'nasnet_a_mobile': Variant(NASNet, 224, '5.3 M, 564 M'),
    'nasnet_a_large': Variant(functools.partial(NASNet, features=168, repeats=6, stem=96, skip_reduction=True), 331,
                              '88.9 M, 23.8 B'),
    'nasnet_a_cifar': Variant(functools.partial(NASNet, num_classes=10, features=32, repeats=6, stem=96,
                                                imagenet=False), 32, '3.3 M')}
