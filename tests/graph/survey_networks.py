"""Networks of the literature as plain functions of a flat dictionary of parameters: the survey's counts are theirs.

Each is `network(layers, x)`; `layers` makes the parameters on the first call (`shapes`) and looks them up afterwards.
Statistics of BatchNorm are no parameters; its affine part, all there is to it in these functions, is two leaves.
"""
import jax
import jax.numpy as jnp

DIMS = ('NHWC', 'HWIO', 'NHWC')
SPEC = jax.ShapeDtypeStruct


class Layers:
  """Parameters by the number of the layer: recorded as zeros while there are none, else read."""

  def __init__(self, params=None):
    self.params, self.made, self.layer = params, {}, 0

  def get(self, name, *shape):
    path = f'{self.layer:03}_{name}'
    self.made[path] = SPEC(shape, jnp.float32)
    return jnp.zeros(shape) if self.params is None else self.params[path]

  def conv(self, x, cout, k=1, stride=1, *, groups=1, bias=False, pad=None):
    self.layer += 1
    pad = k // 2 if pad is None else pad
    w = self.get('kernel', k, k, x.shape[-1] // groups, cout)
    y = jax.lax.conv_general_dilated(x, w, (stride, stride), [(pad, pad)] * 2, dimension_numbers=DIMS,
                                     feature_group_count=groups)
    return y + self.get('bias', 1, 1, 1, cout) if bias else y

  def bn(self, x):
    self.layer += 1
    return x * self.get('scale', 1, 1, 1, x.shape[-1]) + self.get('bias', 1, 1, 1, x.shape[-1])

  def conv_bn(self, x, *args, **kwargs):
    return self.bn(self.conv(x, *args, **kwargs))

  def conv_bn_relu(self, x, *args, **kwargs):
    return jax.nn.relu(self.conv_bn(x, *args, **kwargs))

  def dense(self, x, features):
    self.layer += 1
    return x @ self.get('kernel', x.shape[-1], features) + self.get('bias', 1, features)


def pool(x, k, stride, pad=0, high=None):
  """Maximum; `high` pads the lower right otherwise."""
  pads = ((0, 0), *[(pad, pad if high is None else high)] * 2, (0, 0))
  return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, k, k, 1), (1, stride, stride, 1), pads)


def head(layers, x):
  return layers.dense(x.mean((1, 2)), 1000)


def vgg16(layers, x):
  for features, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
    for _ in range(depth):
      x = jax.nn.relu(layers.conv(x, features, 3, bias=True))
    x = pool(x, 2, 2)
  x = x.reshape(x.shape[0], -1)
  for features in (4096, 4096):
    x = jax.nn.relu(layers.dense(x, features))
  return layers.dense(x, 1000)


def resnet(depths, bottleneck):
  """Version 1.5: the stride is in the 3x3 convolution."""
  def network(layers, x):
    x = pool(layers.conv_bn_relu(x, 64, 7, 2), 3, 2, 1)
    for stage, depth in enumerate(depths):
      width, out = 64 * 2**stage, 64 * 2**stage * (4 if bottleneck else 1)
      for block in range(depth):
        stride = 2 if stage and not block else 1
        y = layers.conv_bn_relu(x, width, 1) if bottleneck else x
        y = layers.conv_bn_relu(y, width, 3, stride)
        y = layers.conv_bn(y, out, 1 if bottleneck else 3)
        x = layers.conv_bn(x, out, 1, stride) if x.shape != y.shape else x
        x = jax.nn.relu(x + y)
    return head(layers, x)
  return network


def mobilenet_v1(layers, x):
  x = layers.conv_bn_relu(x, 32, 3, 2)
  for features, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2),
                           (1024, 1)):
    x = layers.conv_bn_relu(x, x.shape[-1], 3, stride, groups=x.shape[-1])
    x = layers.conv_bn_relu(x, features)
  return head(layers, x)


def mobilenet_v2(layers, x):
  x = layers.conv_bn_relu(x, 32, 3, 2)
  for expand, features, depth, first in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                                         (6, 160, 3, 2), (6, 320, 1, 1)):
    for block in range(depth):
      y = layers.conv_bn_relu(x, expand * x.shape[-1]) if expand > 1 else x
      y = layers.conv_bn_relu(y, y.shape[-1], 3, 1 if block else first, groups=y.shape[-1])
      y = layers.conv_bn(y, features)
      x = x + y if block else y
  return head(layers, layers.conv_bn_relu(x, 1280))


def shuffle(x):
  n, h, w, c = x.shape
  return x.reshape(n, h, w, 2, c // 2).swapaxes(3, 4).reshape(n, h, w, c)


def shufflenet_v2(layers, x):
  """Width 1.0; both branches of a unit with stride have half of the channels."""
  x = pool(layers.conv_bn_relu(x, 24, 3, 2), 3, 2, 1)
  for features, depth in ((116, 4), (232, 8), (464, 4)):
    half = features // 2
    for unit in range(depth):
      stride = 1 if unit else 2
      a, b = (x, x) if stride == 2 else jnp.split(x, 2, -1)
      if stride == 2:
        a = layers.conv_bn_relu(layers.conv_bn(a, a.shape[-1], 3, 2, groups=a.shape[-1]), half)
      b = layers.conv_bn_relu(b, half)
      b = layers.conv_bn_relu(layers.conv_bn(b, half, 3, stride, groups=half), half)
      x = shuffle(jnp.concatenate([a, b], -1))
  return head(layers, layers.conv_bn_relu(x, 1024))


def densenet121(layers, x):
  x = pool(layers.conv_bn_relu(x, 64, 7, 2), 3, 2, 1)
  for stage, depth in enumerate((6, 12, 24, 16)):
    if stage:
      x = layers.conv(jax.nn.relu(layers.bn(x)), x.shape[-1] // 2)
      x = jax.lax.reduce_window(x, 0., jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID') / 4
    for _ in range(depth):
      y = layers.conv_bn_relu(jax.nn.relu(layers.bn(x)), 128)
      x = jnp.concatenate([x, layers.conv(y, 32, 3)], -1)
  return head(layers, jax.nn.relu(layers.bn(x)))


def fire(layers, x, squeeze, expand):
  x = jax.nn.relu(layers.conv(x, squeeze, bias=True))
  parts = [layers.conv(x, expand, k, bias=True) for k in (1, 3)]
  return jax.nn.relu(jnp.concatenate(parts, -1))


def squeezenet(first, kernel, pooled):
  """`pooled`: the fire modules that a pooling comes before."""
  def network(layers, x):
    x = jax.nn.relu(layers.conv(x, first, kernel, 2, pad=0, bias=True))
    for number, (squeeze, expand) in enumerate(((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192),
                                                (64, 256), (64, 256))):
      if number in pooled:
        x = pool(x, 3, 2, high=(x.shape[1] - 3) % 2)
      x = fire(layers, x, squeeze, expand)
    return jax.nn.relu(layers.conv(x, 1000, bias=True)).mean((1, 2))
  return network


NETWORKS = {
    'vgg16': vgg16, 'resnet18': resnet((2, 2, 2, 2), False), 'resnet50': resnet((3, 4, 6, 3), True),
    'mobilenet_v1': mobilenet_v1, 'mobilenet_v2': mobilenet_v2, 'shufflenet_v2_x1_0': shufflenet_v2,
    'densenet121': densenet121, 'squeezenet1_0': squeezenet(96, 7, (0, 3, 7)),
    'squeezenet1_1': squeezenet(64, 3, (0, 2, 4))}


def build(name):
  """(fn, shapes of its parameters, shape of one image)."""
  network, x = NETWORKS[name], SPEC((1, 224, 224, 3), jnp.float32)
  made = Layers()
  jax.eval_shape(lambda x: network(made, x), x)
  return lambda params, x: network(Layers(params), x), made.made, x
