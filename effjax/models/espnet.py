"""ESPNet: Mehta, Rastegari, Caspi, Shapiro, Hajishirzi, ECCV 2018, arXiv:1803.06815, survey [22]."""
import functools

import jax.numpy as jnp

from effjax.errors import EffjaxError
from effjax.layers.avg_pool import avg_pool
from effjax.layers.batch_norm import BatchNorm
from effjax.layers.block import round_channels
from effjax.layers.conv import Conv
from effjax.layers.conv_bn import ConvBN
from effjax.layers.conv_transpose import ConvTranspose
from effjax.layers.esp import ESP
from effjax.layers.prelu import PReLU
from effjax.models.network import Network
from effjax.models.variant import Variant

CHANNELS = (16, 64, 128)  # at 1/2, 1/4, 1/8 of the image


class ESPNet(Network):
  """Semantic segmentation with ESP blocks: logits `[n, h, w, num_classes]` of every pixel.

  The encoder is the paper's ESPNet-C: a convolution, then twice a strided ESP and some ESPs with residual; the image,
  averaged to the same size, joins what comes in at 1/2 and 1/4, and each stage joins its first block with its last. The
  decoder fuses 1/8, 1/4 and 1/2 in `num_classes` channels. Without it the logits are those at 1/8,
  `[n, h / 8, w / 8, num_classes]`: the network that the paper trains first, whose parameters are a part of the whole
  one's. Widths are rounded to multiples of 8. With depths (2, 8) the authors' code, and this, has 365,109 parameters,
  where the paper says 0.364 million. Intermediates: `stage1` to `stage3`, `features`, and `decode2`.

  Args:
    depths: ESPs with residual at 1/4 and 1/8, the paper's alpha_2 and alpha_3.
    decoder: False for ESPNet-C.
    others: as in `Network`.

  Raises:
    EffjaxError: as in `Network`; a height or width that 8 does not divide, which the decoder needs.

  >>> import jax
  >>> net = ESPNet(11, depths=(1, 1))
  >>> jax.eval_shape(lambda key: net.init_with_output(key, jnp.ones((1, 16, 24, 3)), False)[0], jax.random.key(0)).shape
  (1, 16, 24, 11)
  """
  num_classes: int = 20
  depths: tuple[int, int] = (2, 8)
  decoder: bool = True
  stride = 8

  def forward(self, x, train):
    """Encoder, then the decoder or a 1x1 convolution."""
    if self.decoder and (x.shape[1] % 8 or x.shape[2] % 8):
      raise EffjaxError(f'ESPNet: height and width {x.shape[1:3]} are no multiples of 8, which the decoder wants: pad '
                        'or resize the images, or give decoder=False')
    stages = self._encode(x, train)
    logits = Conv(self.num_classes, 1, name='classifier', **self.same)(stages[-1])
    return self._decode(logits, *stages[:2], train) if self.decoder else logits

  def _encode(self, x, train):
    """The joined tensors at 1/2, 1/4 and 1/8."""
    first, *later = (round_channels(channels * self.width) for channels in CHANNELS)
    half = self._halved(x)
    y = ConvBN(first, 3, 2, activation=self._prelu('stem'), name='stem', **self.same)(x, train)
    stages = [self._joined('stage1', [y, half], train)]
    for i, (features, depth) in enumerate(zip(later, self.depths), 2):
      down = y = ESP(features, 2, residual=False, name=f'stage{i}_block1', **self.same)(stages[-1], train)
      for j in range(2, depth + 2):
        y = ESP(features, name=f'stage{i}_block{j}', **self.same)(y, train)
      parts = [y, down, self._halved(half)] if i == 2 else [down, y]
      stages.append(self._joined(f'stage{i}', parts, train))
    self.mark('features', stages[-1])
    return stages

  def _decode(self, logits, stage1, stage2, train):
    """Doubles the size three times; what is fused has `num_classes` channels."""
    classes = self.num_classes
    up = lambda name: ConvTranspose(classes, name=name, **self.same)
    x = up('up3')(BatchNorm(name='classifier_bn', **self.same)(logits, train))
    x = self._joined('decode2', [Conv(classes, 1, name='lateral2', **self.same)(stage2), x], train)
    x = up('up2')(ESP(classes, residual=False, name='decode2_block', **self.same)(x, train))
    x = jnp.concatenate([self._normed('up2', x, train), stage1], -1)
    x = ConvBN(classes, activation=self._prelu('decode1'), name='decode1', **self.same)(x, train)
    return up('up1')(x)

  def _joined(self, name, parts, train):
    return self.mark(name, self._normed(name, jnp.concatenate(parts, -1), train))

  def _normed(self, name, x, train):
    return BatchNorm(self._prelu(name), name=f'{name}_bn', **self.same)(x, train)

  def _prelu(self, name):
    return PReLU(name=f'{name}_prelu', **self.same)

  def _halved(self, x):
    return avg_pool(x, 3, 2, self.pads(3))


def _variant(decoder, depth, paper=''):
  return Variant(functools.partial(ESPNet, decoder=decoder, depths=(2, depth)), 512, paper)


VARIANTS = {'espnet_c_q3': _variant(False, 3), 'espnet_c_q5': _variant(False, 5), 'espnet_c_q8': _variant(False, 8),
            'espnet_q3': _variant(True, 3), 'espnet_q5': _variant(True, 5), 'espnet_q8': _variant(True, 8, '0.364 M')}
