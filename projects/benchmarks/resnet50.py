"""ResNet-50 v1.5 in Flax Linen: the stride of a block is on its 3x3 convolution.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385. SAME padding.
"""
import flax.linen as nn
import jax
import jax.numpy as jnp

SIZE, CLASSES = 224, 1000
BLOCKS = (3, 4, 6, 3)


class ConvBN(nn.Module):
  """Convolution without bias, then BatchNorm in inference mode."""
  features: int
  kernel: int = 1
  strides: int = 1

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(self.features, (self.kernel,) * 2, self.strides, use_bias=False, name='conv')(x)
    return nn.BatchNorm(use_running_average=True, name='bn')(x)


class Bottleneck(nn.Module):
  """`relu(shortcut(x) + expand(relu(conv3x3(relu(reduce(x))))))`."""
  width: int
  strides: int
  project: bool

  @nn.compact
  def __call__(self, x):
    y = nn.relu(ConvBN(self.width, name='reduce')(x))
    y = nn.relu(ConvBN(self.width, 3, self.strides, name='conv3x3')(y))
    y = ConvBN(4 * self.width, name='expand')(y)
    shortcut = ConvBN(4 * self.width, 1, self.strides, name='shortcut')(x) if self.project else x
    return nn.relu(shortcut + y)


class ResNet50(nn.Module):
  """Images `[n, 224, 224, 3]` to logits `[n, 1000]`."""

  @nn.compact
  def __call__(self, x):
    x = nn.relu(ConvBN(64, 7, 2, name='stem')(x))
    x = nn.max_pool(x, (3, 3), (2, 2), 'SAME')
    for stage, blocks in enumerate(BLOCKS):
      for block in range(blocks):
        first = block == 0
        x = Bottleneck(64 * 2**stage, 2 if first and stage else 1, first, name=f'stage{stage}_block{block}')(x)
    return nn.Dense(CLASSES, name='head')(x.mean((1, 2)))


def image(batch=1):
  """The shape of a batch of images."""
  return jax.ShapeDtypeStruct((batch, SIZE, SIZE, 3), jnp.float32)
