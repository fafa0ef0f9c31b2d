"""ShuffleNetV2's unit: half of the channels pass, the other half is convolved."""
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.block import Block
from effjax.layers.channel_shuffle import channel_shuffle
from effjax.layers.conv_bn import ConvBN


class ShuffleUnitV2(Block):
  """`y = shuffle(concat(x1, branch(x2)))`, x1 and x2 the halves of x; where strides is 2, of `shortcut(x), branch(x)`.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`. The branch is 1x1, depthwise, 1x1 of
  `features / 2` channels, under `reduce`, `depthwise`, `expand`; the shortcut is depthwise, 1x1, under
  `shortcut_depthwise`, `shortcut`. All are `ConvBN`s with ReLU, the depthwise ones linear.

  The authors' code differs from torchvision's, which is the default: it shuffles first, so that x1 and x2 are the even
  and odd channels, and its shortcut keeps cin channels, the branch giving the others. Only this has the paper's
  multiply-accumulates.

  Args:
    features: output channels, even; those of x where strides is 1.
    strides: 1, or 2 to halve the size.
    kernel: of the depthwise convolutions.
    authors: the authors' form.
    others: as in `Block`.

  Raises:
    EffjaxError: an odd number of features.

  Source: Ma, Zhang, Zheng, Sun, "ShuffleNet V2", ECCV 2018, arXiv:1807.11164, survey [12].

  >>> import jax
  >>> unit = ShuffleUnitV2(24, strides=2)
  >>> unit.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 12)), False)[0].shape
  (1, 4, 4, 24)
  """
  features: int
  strides: int = 1
  kernel: int = 3
  authors: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    if self.features % 2:
      raise EffjaxError(f'ShuffleUnitV2 {"/".join(self.path) or "(top)"}: {self.features} features have no halves: '
                        'choose an even number')
    down = self.strides == 2
    expand = self._pointwise(self.features - (x.shape[-1] if down and self.authors else self.features // 2), 'expand')
    first, second = (self._shortcut(x, train), x) if down else self._halves(x, expand)
    y = self._pointwise(self.features // 2, 'reduce')(second, train)
    y = expand(self._depthwise('depthwise', y, train), train)
    y = jnp.concatenate([first, y], -1)
    return y if self.authors else channel_shuffle(y, 2)

  def _halves(self, x, expand):
    """In a shrunk network these may differ: the shuffle after them pairs what passes with what the branch gives."""
    passed = x.shape[-1] // 2 if self.authors else expand.features_of(expand.features)
    x = channel_shuffle(x, x.shape[-1] // 2) if self.authors else x
    return x[..., :passed], x[..., passed:]

  def _shortcut(self, x, train):
    x = self._depthwise('shortcut_depthwise', x, train)
    return self._pointwise(x.shape[-1] if self.authors else self.features // 2, 'shortcut')(x, train)

  def _pointwise(self, features, name):
    return ConvBN(features, 1, activation=nn.relu, name=name, **self.same)

  def _depthwise(self, name, x, train):
    return ConvBN(x.shape[-1], self.kernel, self.strides, x.shape[-1], None, name=name, **self.same)(x, train)
