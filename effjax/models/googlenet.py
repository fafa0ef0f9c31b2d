"""GoogLeNet, Inception v1: Szegedy et al., CVPR 2015, arXiv:1409.4842, survey [63]."""
import functools

import flax.linen as nn
import jax.numpy as jnp

from effjax.layers.avg_pool import avg_pool
from effjax.layers.block import round_channels
from effjax.layers.conv_bias import ConvBias
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense
from effjax.layers.local_response_norm import local_response_norm
from effjax.layers.max_pool import max_pool
from effjax.layers.windows import ceil_mode
from effjax.models.network import Network
from effjax.models.variant import Variant

# Channels of the branches: 1x1, (1x1, 3x3), (1x1, 5x5), 1x1 after the pool.
BLOCKS = {
    '3a': (64, (96, 128), (16, 32), 32), '3b': (128, (128, 192), (32, 96), 64),
    '4a': (192, (96, 208), (16, 48), 64), '4b': (160, (112, 224), (24, 64), 64), '4c': (128, (128, 256), (24, 64), 64),
    '4d': (112, (144, 288), (32, 64), 64), '4e': (256, (160, 320), (32, 128), 128),
    '5a': (256, (160, 320), (32, 128), 128), '5b': (384, (192, 384), (48, 128), 128)}
AUXILIARY = ('4a', '4d')  # after these


class GoogLeNet(Network):
  """Three convolutions, nine inception blocks in three stages, the mean, dropout .2 (as torchvision has it) or .4.

  An inception block concatenates four branches. The defaults are torchvision's network: BatchNorm, and a third branch
  of 3x3 kernels where the paper has 5x5. That of the paper has biases, LRN in the stem, and a last pool of 3;
  torchvision's is of 2. Pools have strides 2, the last window may end beyond the image, as in Caffe. Widths are
  rounded to multiples of 8. Intermediates: `stage2` to `stage5` (before the pools), `features`, `pooled`.

  Args:
    auxiliary: whether there are two more classifiers, whose logits training returns too: `(logits, [of 4a, of 4d])`;
      the paper weights their losses with 0.3. They need images of at least 79, and their parameters depend on the
      image size.
    kernel: of the third branch.
    norm: BatchNorm, or biases.
    lrn: whether the stem has local response normalisation, which has no integer kernel.
    last_pool: window of the pool before the last two blocks.
    rate: of the dropout before the classifier.
    others: as in `Network`.

  >>> from effjax import models
  >>> models.count(GoogLeNet(10, width=.5), 64)
  (1415466, 33041408)
  """
  auxiliary: bool = False
  kernel: int = 3
  norm: bool = True
  lrn: bool = False
  last_pool: int = 2
  rate: float = .2

  def forward(self, x, train):
    """Stem, blocks, classifiers."""
    x, others = self._stem(x, train), []
    for name, branches in BLOCKS.items():
      if name in ('4a', '5a'):
        x = _pool(x, self.last_pool if name == '5a' else 3)
      x = self._inception(name, *branches, x, train)
      if name in ('3b', '4e', '5b'):
        x = self.mark(f'stage{name[0]}', x)
      if self.auxiliary and name in AUXILIARY and (train or self.is_initializing()):
        others.append(self._auxiliary(name, x, train))
    # Whole channels: as dropout behind the mean.
    dropout = nn.Dropout(self.rate, (1, 2), deterministic=not train)
    logits = self.classify(dropout(self.mark('features', x)))
    return (logits, others) if self.auxiliary and train else logits

  def _conv(self, features, kernel, strides, name, x, train):
    rounded, same = round_channels(features * self.width), dict(activation=nn.relu, name=name, **self.same)
    return (ConvBN if self.norm else ConvBias)(rounded, kernel, strides, **same)(x, train)

  def _stem(self, x, train):
    x = _pool(self._conv(64, 7, 2, 'conv1', x, train), 3)
    x = local_response_norm(x) if self.lrn else x
    x = self._conv(192, 3, 1, 'conv2', self._conv(64, 1, 1, 'conv2_reduce', x, train), train)
    x = local_response_norm(x) if self.lrn else x
    return _pool(self.mark('stage2', x), 3)

  def _inception(self, name, one, three, five, pooled, x, train):
    conv = lambda part, features, kernel, x: self._conv(features, kernel, 1, f'inception{name}_{part}', x, train)
    pool = max_pool(x, 3, 1, ((1, 1), (1, 1)))
    return jnp.concatenate([
        conv('one', one, 1, x), conv('three', three[1], 3, conv('three_reduce', three[0], 1, x)),
        conv('five', five[1], self.kernel, conv('five_reduce', five[0], 1, x)), conv('pool', pooled, 1, pool)], -1)

  def _auxiliary(self, name, x, train):
    x = self._conv(128, 1, 1, f'auxiliary{name}_conv', avg_pool(x, 5, 3), train).reshape(x.shape[0], -1)
    x = Dense(round_channels(1024 * self.width), nn.relu, name=f'auxiliary{name}_hidden', **self.same)(x)
    x = nn.Dropout(.7, deterministic=not train)(x)
    return Dense(self.num_classes, name=f'auxiliary{name}_classifier', **self.same)(x)


def _pool(x, window):
  return max_pool(x, window, 2, ceil_mode(x.shape, window, 2))


_PAPER = functools.partial(GoogLeNet, kernel=5, norm=False, lrn=True, last_pool=3, rate=.4)

VARIANTS = {
    'googlenet': Variant(GoogLeNet),
    'googlenet_bn': Variant(functools.partial(GoogLeNet, kernel=5, last_pool=3, rate=.4)),
    'googlenet_paper': Variant(_PAPER, paper='7 M, 1.5 G')}
