"""VGG-16 with dilations instead of its last pools, and the context module: Yu, Koltun, ICLR 2016, survey [57]."""
import functools

import flax.linen as nn

from effjax.errors import EffjaxError
from effjax.layers.block import round_channels
from effjax.layers.context_module import ContextModule
from effjax.layers.conv_bias import ConvBias
from effjax.layers.max_pool import max_pool
from effjax.models.network import Network
from effjax.models.variant import Variant
from effjax.models.vgg import DEPTHS, FEATURES

CONTEXTS = ('none', 'basic', 'large')


class DilatedVGG(Network):
  """Semantic segmentation at an eighth of the size, as the paper's: logits `[n, ceil(h / 8), ceil(w / 8), classes]`.

  VGG-16 without its last two pools, with dilation 2 in stage 5 and its dense layers as convolutions, the first of
  dilation 4: the front end, whose scores a `ContextModule` may follow. The paper's convolutions do not pad, and its
  images are larger instead. Dropout .5 after `hidden1` and `hidden2`. The paper states no counts. Parameters of stages
  have the paths that they have in VGG. Intermediates: `stage1` to `stage5`, `features`, and `scores` of the front end.

  Args:
    context: the module that follows: 'basic', 'large', or 'none'.
    hidden: channels of the two convolutions that were dense layers.
    others: as in `Network`.

  Raises:
    EffjaxError: as in `Network`; another context.

  >>> import jax, jax.numpy as jnp
  >>> net = DilatedVGG(5, width=.125, hidden=64)
  >>> jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), jnp.ones((1, 32, 64, 3)), False))[0].shape
  (1, 4, 8, 5)
  """
  num_classes: int = 21
  context: str = 'basic'
  hidden: int = 4096
  stride = 8

  def forward(self, x, train):
    """Front end, context."""
    if self.context not in CONTEXTS:
      raise EffjaxError(f'DilatedVGG: context {self.context!r} is unknown: choose one of {CONTEXTS}')
    hidden = round_channels(self.hidden * self.width)
    x = self._stages(x)
    for i, (kernel, dilation) in enumerate(((7, 4), (1, 1)), 1):
      x = ConvBias(hidden, kernel, dilation=dilation, name=f'hidden{i}', **self.same)(x, False)
      x = nn.Dropout(.5, deterministic=not train)(x)
    x = ConvBias(self.num_classes, 1, activation=None, name='classifier', **self.same)(x, False)
    if self.context == 'none':
      return self.mark('scores', x)
    return ContextModule(self.context == 'large', name='context', **self.same)(self.mark('scores', x))

  def _stages(self, x):
    for i, (features, depth) in enumerate(zip(FEATURES, DEPTHS[16]), 1):
      x = max_pool(x, 2) if 1 < i < 5 else x
      for j in range(1, depth + 1):
        x = ConvBias(round_channels(features * self.width), dilation=2 if i == 5 else 1, name=f'stage{i}_conv{j}',
                     **self.same)(x, False)
      x = self.mark(f'stage{i}', x)
    return self.mark('features', x)


VARIANTS = {
    'dilated_vgg16_front_end': Variant(functools.partial(DilatedVGG, context='none'), 512),
    'dilated_vgg16': Variant(DilatedVGG, 512),
    'dilated_vgg16_large': Variant(functools.partial(DilatedVGG, context='large'), 512)}
