"""Convolution, BatchNorm, activation: what an integer kernel runs as one operation."""
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

MOMENTUM, EPSILON = 0.9, 1e-3


class ConvBN(nn.Module):
  """`y = activation(BatchNorm(conv(x)))`, SAME padding, no bias: folding BatchNorm leaves one conv with a bias.

  `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`. Parameters `conv/kernel`, `bn/scale`,
  `bn/bias`; statistics `bn/mean`, `bn/var` in `batch_stats`.

  Args:
    features: output channels.
    kernel: height and width of the kernel.
    strides: in both directions.
    groups: of the convolution; features == cin == groups is depthwise.
    activation: a function, or None for a linear output. ReLU and ReLU6 are fused by integer kernels.
    axis_name: mapped axis over which the batch statistics are averaged, under `pmap` or `shard_map`.
    dtype: of the convolution and the output; parameters and BatchNorm stay float32.

  `train`: batch statistics, and the running ones are updated (make `batch_stats` mutable); else the running ones.

  Source: Ioffe, Szegedy, "Batch Normalization", ICML 2015, arXiv:1502.03167; ReLU6 as in MobileNet, survey [8].

  >>> import jax
  >>> ConvBN(4).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 8, 8, 4)
  """
  features: int
  kernel: int = 3
  strides: int = 1
  groups: int = 1
  activation: Callable | None = nn.relu6
  axis_name: str | None = None
  dtype: DTypeLike | None = None

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    size, strides = (self.kernel,) * 2, (self.strides,) * 2
    x = nn.Conv(self.features, size, strides, 'SAME', feature_group_count=self.groups, use_bias=False,
                dtype=self.dtype, name='conv')(x)
    bn = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, epsilon=EPSILON, axis_name=self.axis_name,
                      name='bn')
    x = bn(x.astype(jnp.float32)).astype(x.dtype)
    return x if self.activation is None else self.activation(x)
