"""ThunderNet and SNet: Qin, Li, Zhang, Bao, Yu, Peng, Sun, ICCV 2019, arXiv:1903.11752, survey [11]."""
import functools
import math

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from effjax.layers.block import Block
from effjax.layers.conv_bias import ConvBias
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense
from effjax.layers.ps_roi_align import ps_roi_align
from effjax.models.detection.boxes import anchors
from effjax.models.detection.nms import proposals
from effjax.models.detection.two_stage import Found
from effjax.models.shufflenet_v2 import ShuffleNetV2
from effjax.models.variant import Variant

SCALES, RATIOS = (32, 64, 128, 256, 512), (.5, .75, 1., 4 / 3, 2.)
STRIDE, BINS = 16, 7
# SNet is ShuffleNetV2 with depthwise 5x5.
SNETS = {'snet49': dict(features=(60, 120, 240), head=512), 'snet146': dict(features=(132, 264, 528), head=0),
         'snet535': dict(features=(248, 496, 992), stem=48, head=0)}


class ThunderNet(ShuffleNetV2):
  """A detector of two stages upon SNet: `Found` of images, regions and boxes in pixels.

  Context enhancement: `c = p4(stage3) + upsampled(p5(features)) + p6(mean of features)`, of 1x1 convolutions to 245
  channels. Region proposals: a depthwise 5x5 and a 1x1 convolution give `r` of 256 channels, and two 1x1 from r the
  scores and offsets of 25 anchors in every cell. Spatial attention: `f = c sigmoid(BatchNorm(conv(r)))`. Second stage:
  position-sensitive regions of 7x7 bins of f, 5 channels each, and a `RegionHead`. It is trained by
  `effjax.models.detection.two_stage_losses`, and `detect` gives its boxes. No gradient goes through the choice of
  regions. Intermediates: as of `ShuffleNetV2`, and `context`, `attention`.

  SNet146 has 161 million multiply-accumulates at 224 pixels, not the 146 of its name.

  Args:
    num_classes: without the background.
    scales, ratios: of the anchors, in pixels and height by width.
    squeeze: channels of each bin.
    rpn: channels of r.
    hidden: of the second stage.
    before, after: anchors that are suppressed by overlap (IoU .7), and regions that are left; with after 0 the result
      is only (scores, offsets, f), as maps: what an integer device can run.
    others: as in `ShuffleNetV2`, before whose classifier this ends.

  >>> import jax.numpy as jnp
  >>> net = ThunderNet(2, features=(8, 16, 32), depths=(1, 1, 1), head=0, before=20, after=5, scales=(32,))
  >>> shapes = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), jnp.ones((1, 64, 64, 3)), False))
  >>> shapes[0].objectness.shape, shapes[0].logits.shape
  ((1, 80), (1, 5, 3))
  """
  num_classes: int = 80
  kernel: int = 5
  scales: tuple[int | float, ...] = SCALES
  ratios: tuple[int | float, ...] = RATIOS
  squeeze: int = 5
  rpn: int = 256
  hidden: int = 1024
  before: int = 1000
  after: int = 200

  def forward(self, x, train):
    """Both stages."""
    shape, (c4, c5) = x.shape[1:3], self.maps(x, train)
    context = self.mark('context', self._context(c4, c5))
    shared = self._proposing(context, train)
    each = len(self.scales) * len(self.ratios)
    scores, offsets = self._conv1x1(each, 'objectness', shared), self._conv1x1(4 * each, 'offsets', shared)
    gate = ConvBN(context.shape[-1], 1, activation=nn.sigmoid, name='gate', **self.same)(shared, train)
    features = self.mark('attention', context * gate)
    return self._regions(scores, offsets, features, shape) if self.after else (scores, offsets, features)

  def _context(self, c4, c5):
    features = self.squeeze * BINS**2
    p4, p5 = self._conv1x1(features, 'context4', c4), self._conv1x1(features, 'context5', c5)
    p6 = self._conv1x1(features, 'context_mean', c5.mean((1, 2), keepdims=True))
    return p4 + jax.image.resize(p5, (*p4.shape[:3], p5.shape[-1]), 'nearest') + p6

  def _proposing(self, context, train):
    c = context.shape[-1]
    x = ConvBN(c, 5, groups=c, activation=None, name='rpn_depthwise', **self.same)(context, train)
    return ConvBN(self.rpn, 1, activation=nn.relu, name='rpn', **self.same)(x, train)

  def _regions(self, scores, offsets, features, shape):
    boxes = anchors(features.shape[1:3], STRIDE, self.scales, self.ratios)
    scores, offsets = scores.reshape(-1, len(boxes)), offsets.reshape(-1, len(boxes), 4)
    choose = lambda scores, offsets: proposals(scores, offsets, boxes, shape, before=self.before, after=self.after)
    regions, valid = jax.vmap(choose)(scores, offsets)
    aligned = jax.vmap(lambda x, boxes: ps_roi_align(x, boxes, BINS, scale=1 / STRIDE))(features, regions)
    head = RegionHead(self.num_classes + 1, self.hidden, name='regions', **self.same)
    return Found(boxes, scores, offsets, regions, valid, *head(aligned))

  def _conv1x1(self, features, name, x):
    return ConvBias(features, 1, activation=None, name=name, **self.same)(x, False)


class RegionHead(Block):
  """Logits and offsets of regions: a dense layer with ReLU, `hidden`, and one each, `classes` and `offsets`.

  Args:
    num_classes: logits, the background's among them.
    features: of the first layer.
    others: as in `Block`.

  >>> import jax.numpy as jnp
  >>> out, _ = RegionHead(3).init_with_output(jax.random.key(0), jnp.ones((1, 2, 7, 7, 5)))
  >>> [part.shape for part in out]
  [(1, 2, 3), (1, 2, 4)]
  """
  num_classes: int
  features: int = 1024

  @nn.compact
  def __call__(self, x: Float[Array, 'n r bins bins k']) -> tuple[Float[Array, 'n r classes'], Float[Array, 'n r 4']]:
    x = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    x = Dense(self.features, nn.relu, name='hidden', **self.same)(x)
    return Dense(self.num_classes, name='classes', **self.same)(x), Dense(4, name='offsets', **self.same)(x)


_snet = lambda name: functools.partial(ShuffleNetV2, kernel=5, epsilon=1e-5, **SNETS[name])
_thundernet = lambda name: functools.partial(ThunderNet, epsilon=1e-5, **SNETS[name])
VARIANTS = {
    'snet49': Variant(_snet('snet49'), paper='49 M'), 'snet146': Variant(_snet('snet146'), paper='146 M'),
    'snet535': Variant(_snet('snet535'), paper='535 M'),
    'thundernet_snet49': Variant(_thundernet('snet49'), 320, '262 M'),
    'thundernet_snet146': Variant(_thundernet('snet146'), 320, '473 M'),
    'thundernet_snet535': Variant(_thundernet('snet535'), 320, '1.3 G')}
