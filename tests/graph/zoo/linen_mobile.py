"""Networks with depthwise, grouped and transposed convolutions, in Flax Linen."""
import flax.linen as nn
import jax.numpy as jnp

from zoo import images
from zoo.linen_resnets import Conv, Norm, linen


def depthwise(x, stride=1, size=3):
  return Norm()(Conv(x.shape[-1], (size, size), stride, feature_group_count=x.shape[-1])(x))


def shuffle(x, groups):
  n, h, w, c = x.shape
  return x.reshape(n, h, w, groups, c // groups).swapaxes(3, 4).reshape(n, h, w, c)


class MobileNetV3(nn.Module):
  """Blocks of (expanded, out, squeezed or 0, stride); hard-swish; squeeze-excite before the projection."""
  @nn.compact
  def __call__(self, x):
    x = nn.hard_swish(Norm()(Conv(8, (3, 3), 2)(x)))
    for expanded, out, squeezed, stride in ((10, 8, 4, 1), (12, 6, 0, 2), (14, 6, 5, 1)):
      y = nn.hard_swish(Norm()(Conv(expanded, (1, 1))(x)))
      y = nn.hard_swish(depthwise(y, stride, 5))
      if squeezed:
        s = nn.relu(nn.Conv(squeezed, (1, 1))(y.mean((1, 2), keepdims=True)))
        y = y * nn.hard_sigmoid(nn.Conv(expanded, (1, 1))(s))
      y = Norm()(Conv(out, (1, 1))(y))
      x = x + y if x.shape == y.shape else y
    x = nn.hard_swish(Norm()(Conv(16, (1, 1))(x)))
    return nn.Dense(10)(nn.hard_swish(nn.Dense(9)(x.mean((1, 2)))))


class ShuffleNetV1(nn.Module):
  """Two groups. The first unit, of stride 2, concatenates its shortcut; its first convolution has no groups."""
  @nn.compact
  def __call__(self, x):
    x = nn.max_pool(nn.relu(Norm()(Conv(8, (3, 3))(x))), (3, 3), (2, 2), 'SAME')
    y = shuffle(nn.relu(Norm()(Conv(8, (1, 1))(x))), 2)
    y = Norm()(Conv(8, (1, 1), feature_group_count=2)(depthwise(y, 2)))
    x = nn.relu(jnp.concatenate([nn.avg_pool(x, (3, 3), (2, 2), 'SAME'), y], -1))
    y = shuffle(nn.relu(Norm()(Conv(12, (1, 1), feature_group_count=2)(x))), 2)
    x = nn.relu(x + Norm()(Conv(16, (1, 1), feature_group_count=2)(depthwise(y))))
    return nn.Dense(10)(x.mean((1, 2)))


class ShuffleNetV2(nn.Module):
  """A unit of stride 2 with two branches, then one that splits its channels."""
  @nn.compact
  def __call__(self, x):
    conv = lambda n, x: nn.relu(Norm()(Conv(n, (1, 1))(x)))
    x = nn.relu(Norm()(Conv(6, (3, 3))(x)))
    x = shuffle(jnp.concatenate([conv(6, depthwise(x, 2)), conv(6, depthwise(conv(5, x), 2))], -1), 2)
    left, right = jnp.split(x, 2, -1)
    x = shuffle(jnp.concatenate([left, conv(6, depthwise(conv(7, right)))], -1), 2)
    return nn.Dense(10)(conv(8, x).mean((1, 2)))


class UNet(nn.Module):
  """Two levels, skips by concatenation, transposed convolutions; every pixel is classified."""
  @nn.compact
  def __call__(self, x):
    pair = lambda a, b, x: nn.relu(nn.Conv(b, (3, 3))(nn.relu(nn.Conv(a, (3, 3))(x))))
    high = pair(4, 5, x)
    middle = pair(6, 7, nn.max_pool(high, (2, 2), (2, 2)))
    x = pair(8, 9, nn.max_pool(middle, (2, 2), (2, 2)))
    x = pair(10, 11, jnp.concatenate([nn.ConvTranspose(12, (2, 2), (2, 2))(x), middle], -1))
    x = pair(13, 14, jnp.concatenate([nn.ConvTranspose(15, (3, 3), (2, 2))(x), high], -1))
    return nn.Conv(3, (1, 1))(x)


class ConvNeXt(nn.Module):
  """Two stages of (blocks, width); the hidden layer is four times as wide."""
  @nn.compact
  def __call__(self, x):
    x = nn.LayerNorm()(nn.Conv(5, (4, 4), 4, 'VALID')(x))
    for stage, (blocks, width) in enumerate(((2, 5), (1, 7))):
      if stage:
        x = nn.Conv(width, (2, 2), 2, 'VALID')(nn.LayerNorm()(x))
      for block in range(blocks):
        y = nn.LayerNorm()(nn.Conv(width, (7, 7), feature_group_count=width)(x))
        y = nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(y)))
        x = x + self.param(f'scale_{stage}_{block}', nn.initializers.constant(1e-6), (width,)) * y
    return nn.Dense(10)(nn.LayerNorm()(x.mean((1, 2))))


MODELS = {'mobilenet_v3': lambda: linen(MobileNetV3(), images()),
          'shufflenet_v1': lambda: linen(ShuffleNetV1(), images(8)),
          'shufflenet_v2': lambda: linen(ShuffleNetV2(), images(8)), 'unet': lambda: linen(UNet(), images(8)),
          'convnext': lambda: linen(ConvNeXt(), images())}
