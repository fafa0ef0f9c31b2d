"""What residual blocks have in common: the sum with one of four shortcuts, then ReLU."""
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.block import Block
from effjax.layers.conv_bias import ConvBias
from effjax.layers.conv_bn import ConvBN
from effjax.layers.materialize import materialize

SHORTCUTS = ('identity', 'pad', 'project', 'conv')


class Residual(Block):
  """`y = relu(branch(x) + shortcut(x))`; a block writes the method `branch(x, train)`.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`, or more channels where the branch says so.

  Args:
    features: channels of the branch.
    strides: of one convolution of the branch, and of the shortcut.
    shortcut: 'identity'; 'pad' takes every `strides`-th row and column, and appends channels of zeros (the paper's
      option A); 'project' is a 1x1 convolution with BatchNorm (option B); 'conv' one with a bias alone. The parameters
      of the latter two are under `shortcut`.
    bias: whether convolutions before BatchNorm have a bias, as Keras's do.
    others: as in `Block`.

  Raises:
    EffjaxError: an unknown shortcut; 'pad' to fewer channels than there are.

  Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, arXiv:1512.03385, survey [2].

  >>> import jax
  >>> class Twice(Residual):
  ...   def branch(self, x, train):
  ...     return jnp.concatenate([x, x], -1)
  >>> Twice(2, shortcut='pad').init_with_output(jax.random.key(0), jnp.ones((1, 1, 1, 1)), False)[0]
  Array([[[[2., 1.]]]], dtype=float32)
  """
  features: int
  strides: int = 1
  shortcut: str = 'identity'
  bias: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    y = self.branch(x, train)
    return materialize(nn.relu(y + self._shortcut(x, y.shape[-1], train)))

  def branch(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    """What is added to the shortcut, without an activation."""
    raise NotImplementedError

  def conv(self, features: int, kernel: int, strides: int, name: str, **options) -> ConvBN:
    """A layer of a branch: ConvBN with ReLU, unless options say otherwise."""
    options = {'activation': nn.relu, 'bias': self.bias, **self.same, **options}
    return ConvBN(features, kernel, strides, name=name, **options)

  def _shortcut(self, x, features, train):
    if self.shortcut == 'project':
      return self.conv(features, 1, self.strides, 'shortcut', activation=None)(x, train)
    if self.shortcut == 'conv':
      return ConvBias(features, 1, self.strides, activation=None, name='shortcut', **self.same)(x, train)
    if self.shortcut == 'pad':
      return self._padded(x[:, ::self.strides, ::self.strides], features)
    if self.shortcut == 'identity':
      return x
    raise EffjaxError(f'residual block: shortcut {self.shortcut!r} is unknown: choose one of {SHORTCUTS}')

  def _padded(self, x, features):
    if features < x.shape[-1]:
      raise EffjaxError(f"residual block {'/'.join(self.path)}: shortcut 'pad' cannot make {features} channels of "
                        f"{x.shape[-1]}: give the block at least as many, or shortcut='project'")
    return jnp.pad(x, ((0, 0),) * 3 + ((0, features - x.shape[-1]),))
