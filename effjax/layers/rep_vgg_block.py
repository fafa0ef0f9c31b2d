"""RepVGG's block: three branches in training, one convolution once deployed, and the way from one to the other."""
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.batch_norm import BatchNorm
from effjax.layers.block import Block
from effjax.layers.conv_bn import ConvBN
from effjax.tree import PyTree


class RepVGGBlock(Block):
  """`y = relu(spatial(x) + point(x) + identity(x))`: 3x3 and 1x1 convolutions with BatchNorm, and BatchNorm alone.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`. Parameters under `spatial`, `point` and
  `identity`, or with `deployed` one convolution `conv/kernel`, `conv/bias`, which `merge_branches` makes of them.
  `point` sees what the middle of the 3x3 kernel sees, also where 'SAME' pads at the end only.

  Args:
    features: output channels.
    strides: of both convolutions.
    identity: whether there is that branch; needs strides 1 and as many channels of x.
    deployed: one convolution instead of the branches.
    others: as in `Block`; padding is 'SAME' or 'symmetric'.

  Raises:
    EffjaxError: another padding; an identity with strides.

  Source: Ding, Zhang, Ma, Han, Ding, Sun, "RepVGG", CVPR 2021, arXiv:2101.03697.

  >>> import jax
  >>> RepVGGBlock(4, strides=2).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 4, 4, 4)
  """
  features: int
  strides: int = 1
  identity: bool = False
  deployed: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    self._check()
    if self.deployed:
      return nn.relu(self.convolve(x, self.features, 3, self.strides, bias=True))
    y = ConvBN(self.features, 3, self.strides, activation=None, name='spatial', **self.same)(x, train)
    y = y + ConvBN(self.features, 1, activation=None, name='point', **self.same)(self._middles(x), train)
    return nn.relu(y + BatchNorm(name='identity', **self.same)(x, train) if self.identity else y)

  def _middles(self, x):
    """The entries of x in the middle of the 3x3 windows."""
    late = [self.strides == 2 and self.padding == 'SAME' and size % 2 == 0 for size in x.shape[1:3]]
    return x if self.strides == 1 else x[:, int(late[0])::self.strides, int(late[1])::self.strides]

  def _check(self):
    where = f'RepVGGBlock {"/".join(self.path) or "(top)"}'
    if self.padding not in ('SAME', 'symmetric'):
      raise EffjaxError(f"{where}: padding {self.padding!r} makes branches of several sizes: choose 'SAME' or "
                        "'symmetric'")
    if self.strides not in (1, 2) or self.identity and self.strides == 2:
      raise EffjaxError(f'{where}: strides {self.strides} and identity={self.identity}, wanted strides 1, or 2 without '
                        'an identity: choose one of these')


def merge_branches(params: Mapping[str, PyTree], stats: Mapping[str, PyTree], epsilon: float) -> dict[str, PyTree]:
  """The parameters of a deployed block that computes what the three branches do with their running statistics.

  With `t = scale / sqrt(var + epsilon)` per channel, a branch of kernel k is one of kernel `t k` and bias
  `bias - t mean`; the kernel of `point`, and that of the identity, are 3x3 kernels which are zero but in the middle.

  Args:
    params, stats: of the block, from `params` and `batch_stats`.
    epsilon: of its BatchNorms.

  >>> import jax
  >>> x, block = jnp.ones((1, 4, 4, 2)), RepVGGBlock(2, identity=True)
  >>> variables = block.init(jax.random.key(0), x, False)
  >>> merged = merge_branches(variables['params'], variables['batch_stats'], block.epsilon)
  >>> jax.tree.map(jnp.shape, merged)
  {'conv': {'bias': (2,), 'kernel': (3, 3, 2, 2)}}
  """
  kernel, bias = _merged(params['spatial'], stats['spatial'], epsilon)
  branches = [_merged(params['point'], stats['point'], epsilon)]
  if 'identity' in params:
    eye = jnp.eye(kernel.shape[-1], dtype=kernel.dtype)[None, None]
    branches.append(_merged({'conv': {'kernel': eye}, 'bn': params['identity']}, {'bn': stats['identity']}, epsilon))
  for point, offset in branches:
    kernel, bias = kernel + jnp.pad(point, ((1, 1), (1, 1), (0, 0), (0, 0))), bias + offset
  return {'conv': {'kernel': kernel, 'bias': bias}}


def _merged(params, stats, epsilon):
  """Kernel and bias of a convolution with BatchNorm."""
  t = params['bn']['scale'] * lax.rsqrt(stats['bn']['var'] + epsilon)
  return params['conv']['kernel'] * t[None, None, None], params['bn']['bias'] - stats['bn']['mean'] * t
