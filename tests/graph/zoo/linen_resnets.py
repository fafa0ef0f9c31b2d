"""Classification networks with residuals and concatenations, in Flax Linen."""
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo import Model, images, model

Norm = functools.partial(nn.BatchNorm, use_running_average=True)
Conv = functools.partial(nn.Conv, use_bias=False)
DEPTHS, WIDTHS = (3, 4, 6, 3), (2, 4, 6, 8)  # of ResNet-50; a stage's stream is four times its width


class ResNet50(nn.Module):
  """Version 1.5: the 3x3 convolution has the stride."""
  @nn.compact
  def __call__(self, x):
    x = nn.relu(Norm()(Conv(5, (7, 7), 2)(x)))
    x = nn.max_pool(x, (3, 3), (2, 2), 'SAME')
    for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS)):
      for block in range(depth):
        stride = 2 if stage and not block else 1
        y = nn.relu(Norm()(Conv(width, (1, 1))(x)))
        y = nn.relu(Norm()(Conv(width, (3, 3), stride)(y)))
        y = Norm()(Conv(4 * width, (1, 1))(y))
        x = nn.relu(y + (x if block else Norm()(Conv(4 * width, (1, 1), stride)(x))))
    return nn.Dense(10)(x.mean((1, 2)))


class PreActivation(nn.Module):
  """He et al. (2016): norm and relu come before each convolution; the stream itself is linear."""
  @nn.compact
  def __call__(self, x):
    x = nn.max_pool(Conv(5, (7, 7), 2)(x), (3, 3), (2, 2), 'SAME')
    for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS)):
      for block in range(depth):
        stride = 2 if stage and not block else 1
        y = nn.relu(Norm()(x))
        x = x if block else Conv(4 * width, (1, 1), stride)(y)
        y = nn.relu(Norm()(Conv(width, (1, 1))(y)))
        y = nn.relu(Norm()(Conv(width, (3, 3), stride)(y)))
        x = x + Conv(4 * width, (1, 1))(y)
    return nn.Dense(10)(nn.relu(Norm()(x)).mean((1, 2)))


class DenseNet(nn.Module):
  """Growth 3, bottlenecks of 12, a transition that halves."""
  @nn.compact
  def __call__(self, x):
    x = Conv(8, (3, 3))(x)
    for block, depth in enumerate((2, 3)):
      if block:
        x = nn.avg_pool(Conv(x.shape[-1] // 2, (1, 1))(nn.relu(Norm()(x))), (2, 2), (2, 2))
      for _ in range(depth):
        y = Conv(12, (1, 1))(nn.relu(Norm()(x)))
        x = jnp.concatenate([x, Conv(3, (3, 3))(nn.relu(Norm()(y)))], -1)
    return nn.Dense(10)(nn.relu(Norm()(x)).mean((1, 2)))


class GoogLeNet(nn.Module):
  """Two inception blocks; widths of 1x1, 3x3 reduced, 3x3, 5x5 reduced, 5x5, pooled."""
  @nn.compact
  def __call__(self, x):
    x = nn.max_pool(nn.relu(nn.Conv(8, (7, 7), 2)(x)), (3, 3), (2, 2), 'SAME')
    x = nn.relu(nn.Conv(9, (3, 3))(nn.relu(nn.Conv(7, (1, 1))(x))))
    for one, less3, three, less5, five, pooled in ((4, 3, 6, 2, 3, 5), (5, 4, 10, 3, 4, 6)):
      conv = lambda n, k, x: nn.relu(nn.Conv(n, (k, k))(x))
      x = jnp.concatenate([conv(one, 1, x), conv(three, 3, conv(less3, 1, x)), conv(five, 5, conv(less5, 1, x)),
                           conv(pooled, 1, nn.max_pool(x, (3, 3), (1, 1), 'SAME'))], -1)
    return nn.Dense(10)(x.mean((1, 2)))


class MixedNorm(nn.Module):
  """Group norm in a plain part and in a residual."""
  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.GroupNorm(3)(nn.Conv(12, (3, 3))(x)))
    y = nn.relu(nn.GroupNorm(2)(nn.Conv(10, (3, 3), 2)(x)))
    y = y + nn.GroupNorm(2)(nn.Conv(10, (3, 3))(y))
    return nn.Dense(10)(y.mean((1, 2)))


def linen(net: nn.Module, *args) -> Model:
  return model(net.apply, jax.eval_shape(net.init, jax.random.key(0), *args), *args)


MODELS = {'resnet50': lambda: linen(ResNet50(), images()),
          'resnet50_preactivation': lambda: linen(PreActivation(), images()),
          'densenet': lambda: linen(DenseNet(), images(8)), 'googlenet': lambda: linen(GoogLeNet(), images()),
          'group_norm': lambda: linen(MixedNorm(), images(8))}
