"""RepVGG: Ding, Zhang, Ma, Han, Ding, Sun, CVPR 2021, arXiv:2101.03697."""
import functools
from collections.abc import Mapping

from effjax.errors import EffjaxError
from effjax.layers.block import round_channels
from effjax.layers.rep_vgg_block import RepVGGBlock, merge_branches
from effjax.models.network import Network
from effjax.models.variant import Variant
from effjax.tree import PyTree

FEATURES = (64, 128, 256, 512)


class RepVGG(Network):
  """3x3 convolutions only, once deployed: a stem of strides 2, four stages of which the first block has strides 2.

  The paper's counts are of the deployed network; ours are by default of the one that trains, and
  `net.copy(deployed=True)` is the other, whose variables are `reparameterize(net, variables)`. Widths are rounded to
  multiples of 8. Intermediates: `stage1` to `stage4`, `features`, `pooled`.

  Args:
    depths: blocks of each stage.
    factors: of 64, 128, 256, 512 channels, for each stage.
    deployed: one convolution a block instead of three branches.
    others: as in `Network`; padding is 'SAME' or 'symmetric'.

  >>> from effjax import models
  >>> [models.count(RepVGG(deployed=deployed), 224) for deployed in (False, True)]
  [(9108968, 1512581120), (8309384, 1361451008)]
  """
  depths: tuple[int, ...] = (2, 4, 14, 1)
  factors: tuple[float, ...] = (.75, .75, .75, 2.5)
  deployed: bool = False

  def forward(self, x, train):
    """Stem and stages."""
    widths = [round_channels(features * factor * self.width) for features, factor in zip(FEATURES, self.factors)]
    channels = min(round_channels(FEATURES[0] * self.width), widths[0])
    x = RepVGGBlock(channels, 2, deployed=self.deployed, name='stem', **self.same)(x, train)
    for i, (features, depth) in enumerate(zip(widths, self.depths), 1):
      for j in range(1, depth + 1):
        x = RepVGGBlock(features, 2 if j == 1 else 1, j > 1, self.deployed, name=f'stage{i}_block{j}',
                        **self.same)(x, train)
      x = self.mark(f'stage{i}', x)
    return self.classify(self.mark('features', x))


def reparameterize(net: RepVGG, variables: Mapping[str, PyTree]) -> dict[str, PyTree]:
  """Variables of `net.copy(deployed=True)` which compute what those of `net` do with their running statistics.

  Exact but for rounding, also for a network that was shrunk, whose `widths` are then those of the new `params`.

  Raises:
    EffjaxError: a network that is deployed already.

  >>> import jax, jax.numpy as jnp
  >>> net, x = RepVGG(10, width=.125, depths=(1, 1, 1, 1)), jnp.ones((1, 32, 32, 3))
  >>> variables = net.init(jax.random.key(0), x, False)
  >>> deployed = reparameterize(net, variables)
  >>> bool(jnp.allclose(net.copy(deployed=True).apply(deployed, x, False), net.apply(variables, x, False), atol=1e-5))
  True
  """
  if net.deployed:
    raise EffjaxError('reparameterize: this network is deployed already: give the one that was trained')
  params, stats = variables['params'], variables['batch_stats']
  return {'params': {name: merge_branches(block, stats[name], net.epsilon) if name in stats else block
                     for name, block in params.items()}}


def _variant(depths, factors, paper):
  return Variant(functools.partial(RepVGG, depths=depths, factors=factors), paper=paper)


_A, _B = (2, 4, 14, 1), (4, 6, 16, 1)
VARIANTS = {
    'repvgg_a0': _variant(_A, (.75, .75, .75, 2.5), '8.30 M, 1.4 G'),
    'repvgg_a1': _variant(_A, (1., 1., 1., 2.5), '12.78 M, 2.4 G'),
    'repvgg_a2': _variant(_A, (1.5, 1.5, 1.5, 2.75), '25.49 M, 5.1 G'),
    'repvgg_b0': _variant(_B, (1., 1., 1., 2.5), '14.33 M, 3.1 G'),
    'repvgg_b1': _variant(_B, (2., 2., 2., 4.), '51.82 M, 11.8 G'),
    'repvgg_b2': _variant(_B, (2.5, 2.5, 2.5, 5.), '80.31 M, 18.4 G'),
    'repvgg_b3': _variant(_B, (3., 3., 3., 5.), '110.96 M, 26.2 G')}
