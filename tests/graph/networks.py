"""Small networks with all the ways in which channels couple: name -> (fn(params, x), params, x)."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

BN = lambda name=None: nn.BatchNorm(use_running_average=True, name=name)


class Plain(nn.Module):
  @nn.compact
  def __call__(self, x):
    for features in (6, 8):
      x = nn.relu(BN()(nn.Conv(features, (3, 3))(x)))
    return nn.Dense(5)(x.mean((1, 2)))


class Residual(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(6, (3, 3))(x))
    for _ in range(2):
      y = nn.relu(BN()(nn.Conv(4, (3, 3))(x)))
      x = nn.relu(x + BN()(nn.Conv(6, (1, 1))(y)))
    return nn.Dense(5)(x.mean((1, 2)))


class DenseConcat(nn.Module):
  @nn.compact
  def __call__(self, x):
    for _ in range(3):
      x = jnp.concatenate([x, nn.relu(nn.Conv(4, (3, 3))(nn.relu(BN()(x))))], -1)
    return nn.Dense(5)(nn.avg_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1))


def shuffle(x, groups):
  n, h, w, c = x.shape
  return x.reshape(n, h, w, groups, c // groups).swapaxes(3, 4).reshape(n, h, w, c)


class Shuffled(nn.Module):
  """ShuffleNet v1: grouped 1x1, shuffle, depthwise, grouped 1x1."""
  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(12, (1, 1), feature_group_count=2)(nn.Conv(8, (1, 1))(x)))
    x = nn.Conv(12, (3, 3), feature_group_count=12)(shuffle(x, 2))
    return nn.Dense(5)(nn.Conv(8, (1, 1), feature_group_count=2)(x).mean((1, 2)))


class Split(nn.Module):
  """ShuffleNet v2: half of the channels go around, then all are shuffled."""
  @nn.compact
  def __call__(self, x):
    a, b = jnp.split(nn.relu(nn.Conv(8, (1, 1))(x)), 2, -1)
    x = shuffle(jnp.concatenate([a, nn.relu(nn.Conv(4, (3, 3))(b))], -1), 2)
    return nn.Dense(5)((nn.Conv(4, (1, 1))(x[..., :4]) + x[..., 4:]).mean((1, 2)))


class Grouped(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(12, (3, 3), feature_group_count=3)(nn.Conv(9, (1, 1))(x)))
    return nn.Dense(5)(nn.Conv(6, (3, 3), strides=2)(x).mean((1, 2)))


class Depthwise(nn.Module):
  """MobileNetV2's block, then a depthwise convolution that doubles its channels."""
  @nn.compact
  def __call__(self, x):
    x = nn.relu6(BN()(nn.Conv(6, (3, 3), use_bias=False)(x)))
    y = nn.relu6(BN()(nn.Conv(12, (1, 1), use_bias=False)(x)))
    y = nn.relu6(BN()(nn.Conv(12, (3, 3), feature_group_count=12, use_bias=False)(y)))
    x = x + BN()(nn.Conv(6, (1, 1), use_bias=False)(y))
    return nn.Dense(5)(nn.Conv(12, (3, 3), feature_group_count=6)(x).mean((1, 2)))


class SqueezeExcite(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.hard_swish(nn.Conv(8, (3, 3))(x))
    s = nn.sigmoid(nn.Dense(8)(nn.relu(nn.Dense(3)(x.mean((1, 2))))))
    return nn.Dense(5)(nn.max_pool(x * s[:, None, None], (2, 2), (2, 2)).mean((1, 2)))


class Flatten(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.max_pool(nn.relu(nn.Conv(6, (3, 3))(x)), (2, 2), (2, 2))
    return nn.Dense(5)(nn.relu(nn.Dense(7)(x.reshape(x.shape[0], -1))))


class Attention(nn.Module):
  @nn.compact
  def __call__(self, x):
    n, h, w, c = x.shape
    x = nn.Dense(8)(x.reshape(n, h * w, c))
    x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
    x = x + nn.Dense(8)(nn.gelu(nn.Dense(12)(x)))
    return nn.Dense(5)(x.mean(1))


class Transposed(nn.Module):
  """Dilated and transposed convolutions side by side, remat, tanh."""
  @nn.compact
  def __call__(self, x):
    y = nn.silu(nn.Conv(6, (3, 3), strides=2)(x))
    z = nn.ConvTranspose(4, (2, 2), strides=(2, 2))(y)
    x = jnp.concatenate([nn.Conv(5, (3, 3), kernel_dilation=2)(x), z], -1)
    return nn.Dense(5)(nn.tanh(nn.remat(nn.Conv)(6, (1, 1))(x)).mean((1, 2)))


def padded(p, x):
  """A residual whose shortcut is padded with zero channels (CIFAR ResNet, option A), transposes and a select."""
  conv = lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  x = conv(x, p['a'])
  y = conv(jnp.where(x > 0, x, jnp.float32(.1) * x), p['b'])
  x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, 2))) + y
  return jnp.einsum('ncs,co->no', x.transpose(0, 3, 1, 2).reshape(x.shape[0], x.shape[3], -1), p['d'])


def table():
  """Every network with non-trivial random parameters."""
  x = jax.random.normal(jax.random.key(1), (2, 8, 8, 4))
  rng = np.random.default_rng(0)
  made = {}
  for net in (Plain(), Residual(), DenseConcat(), Shuffled(), Split(), Grouped(), Depthwise(), SqueezeExcite(),
              Flatten(), Attention(), Transposed()):
    with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
      shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    fill = lambda w: jnp.asarray(.5 * np.abs(rng.normal(size=w.shape)) if len(w.shape) < 2 else
                                 rng.normal(size=w.shape) / np.sqrt(np.prod(w.shape[:-1])), jnp.float32)
    made[type(net).__name__] = (net.apply, jax.tree.map(fill, shapes), x)
  draw = lambda *s: jnp.asarray(rng.normal(size=s), jnp.float32)
  made['padded'] = padded, {'a': draw(1, 1, 4, 5), 'b': draw(3, 3, 5, 8), 'd': draw(8, 3)}, x
  return made
