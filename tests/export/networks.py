"""Small versions of the networks that people put on devices, as Linen functions `x -> outputs`, with their input shape."""
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


def bn(x):
  return nn.BatchNorm(use_running_average=True)(x)


def conv(x, features, kernel=3, stride=1, act=nn.relu, groups=1, dilation=1, padding='SAME'):
  kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
  x = nn.Conv(features, kernel, (stride, stride), padding, feature_group_count=groups, use_bias=False,
              kernel_dilation=(dilation, dilation))(x)
  return act(bn(x))


def depthwise(x, kernel=3, stride=1, act=nn.relu6, dilation=1):
  return conv(x, x.shape[-1], kernel, stride, act, x.shape[-1], dilation)


def identity(x):
  return x


def average(x, k, stride, padding='VALID', count=False):
  with jax.numpy_dtype_promotion('standard'):  # Flax divides by an integer
    return nn.avg_pool(x, (k, k), (stride, stride), padding, count_include_pad=count)


def head(x, classes=5):
  return nn.Dense(classes)(x.mean((1, 2)))


def plain(x):
  x = nn.max_pool(conv(conv(x, 8), 12), (2, 2), (2, 2))
  return nn.softmax(nn.Dense(5)(nn.relu(nn.Dense(16)(x.reshape(x.shape[0], -1)))))


def resnet(x):  # with the stem and the paddings of PyTorch
  x = conv(x, 8, 7, 2, padding=((3, 3), (3, 3)))
  x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
  for features, stride in ((8, 1), (12, 2)):
    y = conv(conv(x, features, 3, stride, padding=((1, 1), (1, 1))), features, act=identity)
    x = nn.relu(y + (x if stride == 1 else conv(x, features, 1, stride, identity)))
  return head(x)


def pre_activation(x):
  x = nn.Conv(8, (3, 3))(x)
  for _ in range(2):
    y = nn.Conv(8, (3, 3))(nn.relu(bn(x)))
    x = x + nn.Conv(8, (3, 3))(nn.relu(bn(y)))
  return head(nn.relu(bn(x)))


def densenet(x):
  x = nn.Conv(8, (3, 3))(x)
  for _ in range(2):
    for _ in range(2):
      y = nn.Conv(8, (1, 1), use_bias=False)(nn.relu(bn(x)))
      x = jnp.concatenate([x, nn.Conv(4, (3, 3), use_bias=False)(nn.relu(bn(y)))], -1)
    x = average(nn.Conv(8, (1, 1))(nn.relu(bn(x))), 2, 2)
  return head(nn.relu(bn(x)))


def googlenet(x):
  x = nn.max_pool(conv(x, 8, 5, 2), (3, 3), (2, 2), 'SAME')
  for _ in range(2):
    x = jnp.concatenate([conv(x, 4, 1), conv(conv(x, 4, 1), 6, 3), conv(conv(x, 2, 1), 4, 5),
                         conv(nn.max_pool(x, (3, 3), (1, 1), 'SAME'), 4, 1)], -1)
  return head(x)


def squeezenet(x):
  x = nn.max_pool(nn.relu(nn.Conv(8, (3, 3), (2, 2), 'VALID')(x)), (3, 3), (2, 2))
  for _ in range(2):
    s = nn.relu(nn.Conv(4, (1, 1))(x))
    x = jnp.concatenate([nn.relu(nn.Conv(6, (1, 1))(s)), nn.relu(nn.Conv(6, (3, 3))(s))], -1)
  return nn.relu(nn.Conv(5, (1, 1))(x)).mean((1, 2))


def mobilenet_v1(x):
  x = conv(x, 8, 3, 2, nn.relu6)
  for features, stride in ((8, 1), (12, 2), (12, 1)):
    x = conv(depthwise(x, 3, stride), features, 1, act=nn.relu6)
  return head(x)


def mobilenet_v2(x):
  x = conv(x, 8, 3, 2, nn.relu6)
  for features, stride in ((8, 1), (12, 2), (12, 1)):
    y = conv(depthwise(conv(x, 3 * x.shape[-1], 1, act=nn.relu6), 3, stride), features, 1, act=identity)
    x = x + y if x.shape == y.shape else y
  return head(conv(x, 20, 1, act=nn.relu6))


def squeeze_excite(x, gate=nn.hard_sigmoid):
  s = x.mean((1, 2), keepdims=True)
  return x * gate(nn.Conv(x.shape[-1], (1, 1))(nn.relu(nn.Conv(4, (1, 1))(s))))


def mobilenet_v3(x):
  x = conv(x, 8, 3, 2, nn.hard_swish)
  for features, stride, act in ((8, 1, nn.relu), (12, 2, nn.hard_swish), (12, 1, nn.hard_swish)):
    y = squeeze_excite(depthwise(conv(x, 2 * x.shape[-1], 1, act=act), 5, stride, act))
    y = conv(y, features, 1, act=identity)
    x = x + y if x.shape == y.shape else y
  return nn.Dense(5)(nn.hard_swish(nn.Dense(16)(x.mean((1, 2)))))


def efficientnet(x):
  x = conv(x, 8, 3, 2, nn.silu)
  y = conv(squeeze_excite(depthwise(conv(x, 16, 1, act=nn.silu), 3, 1, nn.silu), nn.sigmoid), 8, 1, act=identity)
  return head(conv(x + y, 12, 1, act=nn.silu))


def shuffle(x, groups):
  n, h, w, c = x.shape
  return x.reshape(n, h, w, groups, c // groups).swapaxes(3, 4).reshape(n, h, w, c)


def shufflenet_v1(x):
  x = conv(x, 8, 3, 2)
  y = shuffle(conv(x, 8, 1, groups=2), 2)
  x = nn.relu(x + conv(depthwise(y, act=identity), 8, 1, act=identity, groups=2))
  y = conv(depthwise(shuffle(conv(x, 8, 1, groups=2), 2), 3, 2, identity), 8, 1, act=identity, groups=2)
  return head(jnp.concatenate([average(x, 3, 2, 'SAME'), nn.relu(y)], -1))


def shufflenet_v2(x):
  x = conv(x, 8, 3, 2)
  left, right = jnp.split(x, 2, -1)
  x = shuffle(jnp.concatenate([left, conv(depthwise(conv(right, 4, 1), act=identity), 4, 1)], -1), 2)
  left = conv(depthwise(x, 3, 2, identity), 8, 1)
  x = shuffle(jnp.concatenate([left, conv(depthwise(conv(x, 8, 1), 3, 2, identity), 8, 1)], -1), 2)
  return head(x)


def atrous(x):  # a DeepLab head
  x = conv(conv(x, 8, 3, 2), 8, 3, 2)
  pooled = jnp.broadcast_to(conv(x.mean((1, 2), keepdims=True), 4, 1), (*x.shape[:3], 4))
  x = jnp.concatenate([conv(x, 4, 1), *(conv(depthwise(x, dilation=d), 4, 1) for d in (2, 3)), pooled], -1)
  x = nn.Conv(3, (1, 1))(conv(x, 6, 1))
  n, h, w, c = x.shape
  return jax.image.resize(x, (n, 4 * h, 4 * w, c), 'bilinear')


def darts_cell(x):
  separable = lambda x, k: conv(depthwise(nn.relu(x), k, act=identity), 6, 1, act=identity)
  a, b = (conv(nn.relu(nn.Conv(6, (3, 3))(x)), 6, 1, act=identity) for _ in range(2))
  c = separable(a, 3) + separable(b, 5)
  d = separable(c, 3) + nn.max_pool(a, (3, 3), (1, 1), 'SAME')
  e = average(c, 3, 1, 'SAME') + conv(depthwise(nn.relu(b), 3, act=identity, dilation=2), 6, 1, act=identity)
  return head(jnp.concatenate([c, d, e, average(a, 3, 1, ((1, 1), (1, 1)), count=True)], -1))


def unet(x):
  a = conv(x, 6)
  b = conv(nn.max_pool(a, (2, 2), (2, 2)), 8)
  c = conv(nn.max_pool(b, (2, 2), (2, 2)), 10)
  y = nn.ConvTranspose(8, (2, 2), (2, 2))(c)
  y = conv(jnp.concatenate([y, b], -1), 8)
  y = nn.relu(nn.ConvTranspose(6, (3, 3), (2, 2), 'SAME')(y))  # the shape that converters get wrong
  n, h, w, _ = y.shape
  y = jnp.concatenate([y, a, jax.image.resize(b, (n, h, w, b.shape[-1]), 'nearest')], -1)
  return nn.Conv(2, (1, 1))(y)


def convnext(x):
  x = nn.LayerNorm()(nn.Conv(8, (4, 4), (4, 4), 'VALID')(x))
  y = nn.LayerNorm()(nn.Conv(8, (7, 7), feature_group_count=8)(x))
  y = nn.Dense(8)(nn.gelu(nn.Dense(24)(y)))
  return head(x + y * nn.BatchNorm(use_running_average=True, use_bias=False)(jnp.ones_like(y[:1, :1, :1])))


def vit(x):
  x = nn.Conv(8, (4, 4), (4, 4), 'VALID')(x)
  n, h, w, c = x.shape
  x = jnp.concatenate([jnp.broadcast_to(nn.BatchNorm(use_running_average=True)(jnp.zeros((1, 1, c))), (n, 1, c)),
                       x.reshape(n, h * w, c)], 1)
  x = x + .1 * nn.Embed(h * w + 1, c)(jnp.arange(h * w + 1))[None]
  for _ in range(2):
    x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
    x = x + nn.Dense(c)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x)), approximate=False))
  return nn.log_softmax(nn.Dense(5)(nn.LayerNorm()(x)[:, 0]))


def decoder(x):  # causal attention, and norms with `jnp.var`
  n, t, c = x.shape
  norm = lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
  q, k, v = (nn.DenseGeneral((2, 4))(norm(x)) for _ in range(3))
  scores = jnp.einsum('nqhd,nkhd->nhqk', q, k) / 2.
  scores = jnp.where(jnp.tril(jnp.ones((t, t), bool)), scores, -1e9)
  x = x + nn.DenseGeneral(c, (-2, -1))(jnp.einsum('nhqk,nkhd->nqhd', nn.softmax(scores), v))
  return nn.Dense(11)(norm(x))


def ds_cnn(x):  # keyword spotting: spectrogram in, MLPerf Tiny's order of layers
  x = conv(x, 8, (10, 4), 2)
  for _ in range(2):
    x = conv(depthwise(x, act=nn.relu), 8, 1)
  return nn.softmax(head(x))


def autoencoder(x):
  for features in (16, 8, 4, 8, 16):
    x = nn.relu(bn(nn.Dense(features)(x)))
  return nn.Dense(20)(x)


def group_norm(x):
  x = nn.relu(nn.GroupNorm(2)(nn.Conv(8, (3, 3))(x)))
  return head(nn.leaky_relu(nn.Conv(8, (3, 3))(x), .1))


def two_heads(x):  # several outputs, one of them a class
  x = conv(x, 8, 3, 2, nn.tanh)
  box = nn.sigmoid(nn.Conv(4, (1, 1))(x))
  logits = nn.Dense(6)(x.max((1, 2)) - x.mean((1, 2)))
  return {'box': box, 'class': jnp.argmax(logits, -1), 'logits': logits}


class Kernel(nn.Module):
  shape: tuple

  @nn.compact
  def __call__(self):
    return self.param('kernel', nn.initializers.normal(), self.shape)


def channels_first(x):  # a model that was written for NCHW
  x = x.transpose(0, 3, 1, 2)
  shift = lambda x, n: nn.BatchNorm(use_running_average=True, axis=1)(x)
  for features in (6, 8):
    w = Kernel((3, 3, x.shape[1], features))()
    x = lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=('NCHW', 'HWIO', 'NCHW'))
    x = nn.relu(shift(x, features))
  return nn.Dense(5)(nn.relu(shift(x, 8)).mean((2, 3)))


SMALL, IMAGE = (12, 12, 3), (16, 16, 3)
NETWORKS = {f.__name__: (f, shape) for shape, fs in {
    SMALL: (plain, pre_activation, googlenet, mobilenet_v1, mobilenet_v2, mobilenet_v3, efficientnet,
            shufflenet_v1, shufflenet_v2, darts_cell, two_heads, channels_first, group_norm),
    IMAGE: (resnet, densenet, squeezenet, atrous, unet, convnext, vit),
    (24, 10, 1): (ds_cnn,), (20,): (autoencoder,), (6, 8): (decoder,)}.items() for f in fs}
