"""GhostNet: Han, Wang, Tian, Guo, Xu, Xu, CVPR 2020, arXiv:1911.11907."""
import functools

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.block import Block, round_channels
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense
from effjax.layers.ghost_module import GhostModule
from effjax.layers.squeeze_excite import SqueezeExcite
from effjax.models.network import Network
from effjax.models.variant import Variant

STEM = 16
# The paper's table by resolution: kernel, hidden channels, features, squeeze-excite, strides.
STAGES = (
    ((3, 16, 16, 0, 1),),
    ((3, 48, 24, 0, 2), (3, 72, 24, 0, 1)),
    ((5, 72, 40, 1, 2), (5, 120, 40, 1, 1)),
    ((3, 240, 80, 0, 2), (3, 200, 80, 0, 1), (3, 184, 80, 0, 1), (3, 184, 80, 0, 1), (3, 480, 112, 1, 1),
     (3, 672, 112, 1, 1)),
    ((5, 672, 160, 1, 2), (5, 960, 160, 0, 1), (5, 960, 160, 1, 1), (5, 960, 160, 0, 1), (5, 960, 160, 1, 1)))


class GhostBottleneck(Block):
  """`y = project(gate(depthwise(expand(x)))) + shortcut(x)`; `expand` and `project` are `GhostModule`s.

  `depthwise` is there where strides are not 1, the gate is a `SqueezeExcite`. The shortcut is the identity, or a
  depthwise and a 1x1 convolution, without activations.

  Args:
    features, hidden: channels of y, and in between.
    kernel, strides: of the depthwise convolutions.
    squeeze: channels of the squeeze-excite; 0 for none.
    identity: whether the shortcut is the identity.
    others: as in `Block`.

  >>> import jax, jax.numpy as jnp
  >>> block = GhostBottleneck(6, 8, strides=2)
  >>> jax.eval_shape(lambda key: block.init_with_output(key, jnp.ones((1, 8, 8, 4)), False)[0], jax.random.key(0)).shape
  (1, 4, 4, 6)
  """
  features: int
  hidden: int
  kernel: int = 3
  strides: int = 1
  squeeze: int = 0
  identity: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    y = GhostModule(self.hidden, name='expand', **self.same)(x, train)
    if self.strides > 1:
      y = self._depthwise('depthwise', y, train)
    if self.squeeze:
      y = SqueezeExcite(self.squeeze, gate=nn.hard_sigmoid, name='squeeze_excite', **self.same)(y)
    y = GhostModule(self.features, activation=None, name='project', **self.same)(y, train)
    if not self.identity:
      x = self._depthwise('shortcut_depthwise', x, train)
      x = ConvBN(self.features, 1, activation=None, name='shortcut', **self.same)(x, train)
    return x + y

  def _depthwise(self, name, x, train):
    channels = x.shape[-1]
    return ConvBN(channels, self.kernel, self.strides, channels, None, name=name, **self.same)(x, train)


class GhostNet(Network):
  """3x3 convolution of strides 2, bottlenecks, 1x1 convolution, mean, and a dense layer before the classifier.

  Widths are rounded to multiples of 4; the 1280 channels of `hidden` stay. Squeeze-excite has a fourth of the hidden
  channels and a hard sigmoid. Intermediates: `stage1` to `stage5`, `features`, `pooled`.

  Args:
    stages: bottlenecks as in the table at the top of this file.
    hidden: channels of the dense layer before the classifier.
    dropout: rate before the classifier, in training.
    others: as in `Network`.

  >>> from effjax import models
  >>> models.count(GhostNet(), 224)
  (5182508, 141150512)
  """
  stages: tuple[tuple[tuple[int, ...], ...], ...] = STAGES
  hidden: int = 1280
  dropout: float = .2

  def forward(self, x, train):
    """Stem, stages, head."""
    channels = self._rounded(STEM)
    x = ConvBN(channels, 3, 2, activation=nn.relu, name='stem', **self.same)(x, train)
    for i, rows in enumerate(self.stages, 1):
      for j, (kernel, hidden, features, squeeze, strides) in enumerate(rows, 1):
        hidden, features = self._rounded(hidden), self._rounded(features)
        x = GhostBottleneck(features, hidden, kernel, strides, round_channels(hidden / 4, 4) * squeeze,
                            strides == 1 and channels == features, name=f'stage{i}_block{j}', **self.same)(x, train)
        channels = features
      x = self.mark(f'stage{i}', x)
    x = ConvBN(hidden, 1, activation=nn.relu, name='head', **self.same)(x, train)
    x = self.mark('pooled', self.mark('features', x).mean((1, 2)))
    x = Dense(self.hidden, nn.relu, name='hidden', **self.same)(x)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return Dense(self.num_classes, name='classifier', **self.same)(x)

  def _rounded(self, channels):
    return round_channels(channels * self.width, 4)


VARIANTS = {
    'ghostnet': Variant(GhostNet, paper='5.2 M, 141 M'),
    'ghostnet_0.5': Variant(functools.partial(GhostNet, width=.5), paper='2.6 M, 42 M'),
    'ghostnet_1.3': Variant(functools.partial(GhostNet, width=1.3), paper='7.3 M, 226 M')}
