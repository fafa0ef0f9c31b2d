"""AlexNet: Krizhevsky, Sutskever, Hinton, NeurIPS 2012; "One weird trick", arXiv:1404.5997; survey [18]."""
import functools

import flax.linen as nn

from effjax.layers.block import round_channels
from effjax.layers.conv_bias import ConvBias
from effjax.layers.dense import Dense
from effjax.layers.local_response_norm import local_response_norm
from effjax.layers.max_pool import max_pool
from effjax.layers.windows import ceil_mode
from effjax.models.network import Network
from effjax.models.variant import Variant

FEATURES_2012, FEATURES_2014 = (96, 256, 384, 384, 256), (64, 192, 384, 256, 256)
KERNELS, POOLED, NORMALISED, TOWERED, HIDDEN = (11, 5, 3, 3, 3), (1, 2, 5), (1, 2), (2, 4, 5), 4096


class AlexNet(Network):
  """Five convolutions of 11, 5, 3, 3, 3 with strides 4 and 1, overlapping max pools, two dense layers of 4096.

  The defaults are the net of "One weird trick" as torchvision has it: no LRN, padding 2 at the first convolution. That
  of 2012 has two towers (convolutions 2, 4, 5 in two groups), LRN after the first two, and no padding at the first, so
  that the 55 windows of its figure need images of 227, where the paper says 224. Pools are of 3 with strides 2, the
  last window may end beyond the image, as in Caffe; the first dense layer takes all that is left of height and width,
  so its parameters depend on the image size. With LRN the channels that pass it are removed all or none, and there is
  no integer kernel for it. Widths are rounded to multiples of 8. Dropout .5 before each of the two dense layers.
  Intermediates: `stage1` to `stage5`, `features`, `pooled`.

  Args:
    features: channels of the convolutions.
    groups: of the convolutions 2, 4, 5.
    lrn: whether local response normalisation follows the first two.
    pad: of the first convolution, on all sides.
    others: as in `Network`; of `padding` only the other convolutions know.

  >>> from effjax import models
  >>> models.count(AlexNet(), 224)
  (61100840, 714188480)
  """
  features: tuple[int, ...] = FEATURES_2014
  groups: int = 1
  lrn: bool = False
  pad: int = 2
  stride = 39  # with fewer pixels the last pool has no window: 39 are 8, 4, 2, 1 without padding

  def forward(self, x, train):
    """Convolutions, then dense layers."""
    for i, (features, kernel) in enumerate(zip(self.features, KERNELS), 1):
      padding = ((self.pad, self.pad),) * 2 if i == 1 else self.padding
      x = ConvBias(round_channels(features * self.width), kernel, 4 if i == 1 else 1, name=f'conv{i}',
                   groups=self.groups if i in TOWERED else 1, **{**self.same, 'padding': padding})(x, train)
      x = local_response_norm(x) if self.lrn and i in NORMALISED else x
      x = self.mark(f'stage{i}', x)
      x = max_pool(x, 3, 2, ceil_mode(x.shape, 3, 2)) if i in POOLED else x
    x = self.mark('features', x).reshape(x.shape[0], -1)
    for name in ('hidden1', 'hidden2'):
      x = nn.Dropout(.5, deterministic=not train)(x)
      x = Dense(round_channels(HIDDEN * self.width), nn.relu, name=name, **self.same)(x)
    return Dense(self.num_classes, name='classifier', **self.same)(self.mark('pooled', x))


_OF_2012 = functools.partial(AlexNet, features=FEATURES_2012, lrn=True, pad=0)

VARIANTS = {
    'alexnet': Variant(AlexNet),
    'alexnet_two_tower': Variant(functools.partial(_OF_2012, groups=2), 227, '60 M'),
    'alexnet_ungrouped': Variant(_OF_2012, 227)}
