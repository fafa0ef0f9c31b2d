"""Convolution, BatchNorm, activation: what an integer kernel runs as one operation."""
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.layers.batch_norm import BatchNorm
from effjax.layers.block import Block


class ConvBN(Block):
  """`y = activation(BatchNorm(conv(x)))`: folding BatchNorm leaves one conv with a bias.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]` unless padding is VALID. Parameters
  `conv/kernel`, `bn/scale`, `bn/bias`; statistics `bn/mean`, `bn/var` in `batch_stats`.

  Args:
    features: output channels.
    kernel: height and width of the kernel, or a pair.
    strides: in both directions, or a pair.
    groups: of the convolution; features == cin == groups is depthwise.
    activation: a function, or None for a linear output. ReLU and ReLU6 are fused by integer kernels.
    dilation: steps between the entries that a kernel reads.
    scale_init: of BatchNorm's scale; zeros in the last one of a residual branch make the block the identity at first.
    bias: whether the convolution has a bias `conv/bias`, which BatchNorm takes away again: some published networks do.
    others: as in `Block`.

  `train`: as in `BatchNorm`.

  Raises:
    EffjaxError: channels that groups do not divide.

  Source: Ioffe, Szegedy, "Batch Normalization", ICML 2015, arXiv:1502.03167; ReLU6 as in MobileNet, survey [8].

  >>> import jax, jax.numpy as jnp
  >>> ConvBN(4).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 8, 8, 4)
  """
  features: int
  kernel: int | tuple[int, int] = 3
  strides: int | tuple[int, int] = 1
  groups: int = 1
  activation: Callable | None = nn.relu6
  dilation: int = 1
  scale_init: Callable = nn.initializers.ones
  bias: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    x = self.convolve(x, self.features, self.kernel, self.strides, groups=self.groups, dilation=self.dilation,
                      bias=self.bias)
    return BatchNorm(self.activation, self.scale_init, name='bn', **self.same)(x, train)
