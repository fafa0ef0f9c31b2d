"""ESPNet's efficient spatial pyramid: one reduced tensor, seen at several dilations at once."""
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.layers.batch_norm import BatchNorm
from effjax.layers.block import Block
from effjax.layers.conv import Conv
from effjax.layers.prelu import PReLU


class ESP(Block):
  """Reduce, split, transform, merge: `y = PReLU(BatchNorm([x +] concat(b_1, b_2, b_2 + b_3, ..., b_2 + ... + b_K)))`.

  `b_k` is a 3x3 convolution of dilation `2^(k - 1)` of `r = reduce(x)`, which has `d = features // K` channels; b_1 has
  the rest of the features. The sums ("hierarchical feature fusion") fill the holes that dilation leaves. With features
  that K divides, `cin features / K + 9 features^2 / K` weights see `(2^K + 1)^2` entries of x; K = 5 sees 33x33
  where strides is 1. `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`. Parameters under
  `reduce`, `branch1` ... `branchK`, `bn` and `prelu`; r has no activation.

  In the paper the sums start at b_1; in the authors' code, and here, b_1 stands alone.

  Args:
    features: output channels, at least K.
    strides: 1: `reduce` is 1x1; else a 3x3 convolution with these strides.
    residual: whether x is added; it must have the features of the result.
    branches: K.
    others: as in `Block`.

  `train`: as in `BatchNorm`.

  Source: Mehta, Rastegari, Caspi, Shapiro, Hajishirzi, "ESPNet", ECCV 2018, arXiv:1803.06815, survey [22];
  `train/Model.py` of github.com/sacmehta/ESPNet.

  >>> import jax
  >>> ESP(16, strides=2, residual=False).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 4, 4, 16)
  """
  features: int
  strides: int = 1
  residual: bool = True
  branches: int = 5

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    least = self.features // self.branches
    r = Conv(least, 1 if self.strides == 1 else 3, self.strides, name='reduce', **self.same)(x)
    widths = [self.features - (self.branches - 1) * least] + [least] * (self.branches - 1)
    b = [Conv(width, 3, dilation=2**k, name=f'branch{k + 1}', **self.same)(r) for k, width in enumerate(widths)]
    y = jnp.concatenate([b[0], *fused(b[1:])], -1)
    norm = BatchNorm(PReLU(name='prelu', **self.same), name='bn', **self.same)
    return norm(x + y if self.residual else y, train)


def fused(branches: list[Array]) -> list[Array]:
  """Hierarchical feature fusion: `[b_1, b_1 + b_2, ..., b_1 + ... + b_K]`.

  >>> [y.item() for y in fused([jnp.float32(1), jnp.float32(2), jnp.float32(4)])]
  [1.0, 3.0, 7.0]
  """
  sums = branches[:1]
  for branch in branches[1:]:
    sums.append(sums[-1] + branch)
  return sums
