"""ESPNetv2: Mehta, Rastegari, Shapiro, Hajishirzi, CVPR 2019, arXiv:1811.11431, survey [23]."""
import functools
import math

import flax.linen as nn
import jax.numpy as jnp

from effjax.layers.avg_pool import avg_pool
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense
from effjax.layers.eesp import EESP
from effjax.layers.prelu import PReLU
from effjax.models.network import Network
from effjax.models.variant import Variant

BRANCHES = 4
# What the branches may see: of the block that halves the size, and of those after it.
LIMITS = {2: (13, 13), 3: (11, 9), 4: (9, 7), 5: (7, 5)}


class ESPNetV2(Network):
  """Classification: stem, four stages of EESPs that halve the size, a depthwise 3x3, a grouped 1x1, a classifier.

  A stage begins with `PReLU(concat(avg_pool(x), EESP(x)) + project(embed(image)))`, where the image, averaged as often
  as it takes to have this size, comes back in all stages but the last. Stage i has `2^(i - 1) c` channels, c = 32 width
  rounded up to a multiple of 4; the stem, stage 1, has at most 32. Not every width has channels that the groups divide:
  .5, 1 and more do. Dropout .2 before the classifier. Parameters are those that do something: the authors' code makes
  0.1 to 0.2 % more, PReLUs and a projection that it never calls. Their BatchNorm has an epsilon of 1e-5, as the
  registered networks have. Intermediates: `stage1` to `stage5`, `features`, `pooled`.

  Args:
    depths: EESPs with residual in each stage, after the first block.
    head: channels of the last convolution.
    others: as in `Network`.

  >>> import jax
  >>> net = ESPNetV2(10, width=.5, depths=(0, 1, 1, 1))
  >>> jax.eval_shape(lambda key: net.init_with_output(key, jnp.ones((1, 32, 32, 3)), False)[0], jax.random.key(0)).shape
  (1, 10)
  """
  depths: tuple[int, ...] = (0, 3, 7, 3)
  head: int = 1024

  def forward(self, x, train):
    """Stem, stages, head."""
    image, base = x, math.ceil(int(32 * self.width) / BRANCHES) * BRANCHES
    channels = min(base, 32)
    x = self.mark('stage1', self._conv(channels, 3, 2, name='stem')(x, train))
    image = self._halved(image)
    for i, depth in enumerate(self.depths, 2):
      image, before, channels = self._halved(image), channels, base * 2**(i - 1)
      x = self._down(channels - before, channels, LIMITS[i][0], f'stage{i}', x, image if i < 5 else None, train)
      for j in range(1, depth + 1):
        x = EESP(channels, branches=BRANCHES, limit=LIMITS[i][1], name=f'stage{i}_block{j}', **self.same)(x, train)
      x = self.mark(f'stage{i}', x)
    x = self._conv(x.shape[-1], 3, groups=x.shape[-1], name='head_depthwise')(x, train)
    x = self.mark('features', self._conv(self.head, 1, groups=BRANCHES, name='head')(x, train))
    x = nn.Dropout(.2, deterministic=not train)(self.mark('pooled', x.mean((1, 2))))
    return Dense(self.num_classes, name='classifier', **self.same)(x)

  def _down(self, features, channels, limit, name, x, image, train):
    """Halves the size; `channels` are those of x, and `features` new ones."""
    y = EESP(features, 2, BRANCHES, limit, name=f'{name}_down', **self.same)(x, train)
    y = jnp.concatenate([self._halved(x), y], -1)
    if image is not None:
      embedded = self._conv(self.channels, 3, name=f'{name}_embed')(image, train)
      y = y + ConvBN(channels, 1, activation=None, name=f'{name}_project', **self.same)(embedded, train)
    return PReLU(name=f'{name}_prelu', **self.same)(y)

  def _conv(self, features, kernel, strides=1, groups=1, *, name):
    prelu = PReLU(name=f'{name}_prelu', **self.same)
    return ConvBN(features, kernel, strides, groups, prelu, name=name, **self.same)

  def _halved(self, x):
    return avg_pool(x, 3, 2, self.pads(3))


def _variant(width, paper, head=1024):
  return Variant(functools.partial(ESPNetV2, width=width, head=head, epsilon=1e-5), paper=paper)


VARIANTS = {'espnet_v2_0.5': _variant(.5, '1.24 M, 28 M'), 'espnet_v2': _variant(1., '1.67 M, 86 M'),
            'espnet_v2_1.25': _variant(1.25, '1.96 M, 123 M'), 'espnet_v2_1.5': _variant(1.5, '2.31 M, 169 M'),
            'espnet_v2_2.0': _variant(2., '3.49 M, 284 M', 1280)}
