"""ESPNetv2's extremely efficient spatial pyramid: depthwise dilated convolutions between grouped 1x1 ones."""
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.layers.batch_norm import BatchNorm
from effjax.layers.block import Block
from effjax.layers.conv import Conv
from effjax.layers.conv_bn import ConvBN
from effjax.layers.esp import fused
from effjax.layers.prelu import PReLU


class EESP(Block):
  """`y = PReLU(x + expand(PReLU(BatchNorm(concat(b_1, b_1 + b_2, ..., b_1 + ... + b_K)))))`.

  `b_k` is a depthwise 3x3 convolution of `r = PReLU(reduce(x))`, of `dilations(K, limit)[k]`; `reduce` and `expand`
  are `ConvBN`s of 1x1 in K groups, to `features / K` and to `features` channels, so that `expand` is a 1x1 convolution
  of each branch alone. `[n, h, w, cin] -> [n, ceil(h / strides), ceil(w / strides), features]`. Where strides is not 1
  the branches have them, x is not added, and the last PReLU is left to what joins the result with x pooled. Parameters
  under `reduce`, `branch1` ... `branchK`, `merge`, `expand`; the slopes are `reduce_prelu`, `merge_prelu`, `prelu`.

  Args:
    features: output channels; K divides cin, features and `features / K`.
    strides: 1, or those of the branches.
    branches: K.
    limit: the widest that a branch may see.
    residual: whether x is added where strides is 1; it must have the features of the result.
    others: as in `Block`.

  `train`: as in `BatchNorm`.

  Raises:
    EffjaxError: channels that K does not divide.

  Source: Mehta, Rastegari, Shapiro, Hajishirzi, "ESPNetv2", CVPR 2019, arXiv:1811.11431, survey [23].

  >>> import jax
  >>> EESP(16).init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 16)), False)[0].shape
  (1, 8, 8, 16)
  """
  features: int
  strides: int = 1
  branches: int = 4
  limit: int = 9
  residual: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h2 w2 features']:
    k, prelu = self.branches, lambda name: PReLU(name=name, **self.same)
    r = ConvBN(self.features // k, 1, groups=k, activation=prelu('reduce_prelu'), name='reduce', **self.same)(x, train)
    c = r.shape[-1]
    y = fused([Conv(c, 3, self.strides, c, dilation, name=f'branch{i}', **self.same)(r)
               for i, dilation in enumerate(dilations(k, self.limit), 1)])
    y = BatchNorm(prelu('merge_prelu'), name='merge', **self.same)(jnp.concatenate(y, -1), train)
    y = ConvBN(self.features, 1, groups=k, activation=None, name='expand', **self.same)(y, train)
    if self.strides != 1:
      return y
    return prelu('prelu')(x + y if self.residual else y)


def dilations(branches: int, limit: int) -> list[int]:
  """Of the branches of an EESP: 1, 2, 3 ..., seeing 3, 5, 7 ...; one that would see more than `limit` sees 3; sorted.

  >>> dilations(4, 9), dilations(4, 5)
  ([1, 2, 3, 4], [1, 1, 1, 2])
  """
  return sorted(d if 2 * d + 1 <= limit else 1 for d in range(1, branches + 1))
