"""Every network by name."""
import difflib
import math
from typing import Any

import jax
import jax.numpy as jnp

from effjax.errors import EffjaxError
from effjax.graph.profile import counts, profile
from effjax.models import (
  alexnet,
  amoebanet,
  convnext,
  darts,
  densenet,
  dilated_vgg,
  ds_cnn,
  efficientnet,
  espnet,
  espnet_v2,
  gcn,
  ghostnet,
  googlenet,
  igc,
  igcv3,
  mnasnet,
  mobilenet_v1,
  mobilenet_v2,
  mobilenet_v3,
  mobilenet_v4,
  nasnet,
  repvgg,
  resnet,
  resnext,
  shufflenet,
  shufflenet_v2,
  squeezenet,
  thundernet,
  vgg,
  xception,
)
from effjax.models.network import Network
from effjax.models.variant import Variant
from effjax.tree import PyTree

# Alphabetical.
FAMILIES = (alexnet, amoebanet, convnext, darts, densenet, dilated_vgg, ds_cnn, efficientnet, espnet, espnet_v2, gcn,
            ghostnet, googlenet, igc, igcv3, mnasnet, mobilenet_v1, mobilenet_v2, mobilenet_v3, mobilenet_v4, nasnet,
            repvgg, resnet, resnext, shufflenet, shufflenet_v2, squeezenet, thundernet, vgg, xception)
NETWORKS: dict[str, Variant] = {name: variant for family in FAMILIES for name, variant in family.VARIANTS.items()}


def create(name: str, **options: Any) -> Network:
  """The network of that name; options are its fields, such as `num_classes`, `width`, `dtype`.

  Raises:
    EffjaxError: no network has that name, or it has no such field.

  >>> create('mobilenet_v2', num_classes=10).num_classes
  10
  """
  if name not in NETWORKS:
    near = difflib.get_close_matches(name, NETWORKS, n=3, cutoff=0.)
    raise EffjaxError(f'models: no network is called {name!r}: nearest are {near}; `effjax models` lists all')
  try:
    return NETWORKS[name].make(**options)
  except TypeError as error:
    raise EffjaxError(f'models: {name!r} does not take these options ({error}): give fields of the network') from error


def shapes(net: Network, size: int | tuple[int, int], batch: int = 1) -> tuple[PyTree, jax.ShapeDtypeStruct]:
  """Shapes of the variables of a network, without computing any, and of a batch of images.

  >>> variables, images = shapes(create('mobilenet_v2'), 224)
  >>> images.shape, variables['params']['classifier']['kernel'].shape
  ((1, 224, 224, 3), (1280, 1000))
  """
  height, width = (size, size) if isinstance(size, int) else size
  images = jax.ShapeDtypeStruct((batch, height, width, net.channels), jnp.float32)
  return jax.eval_shape(lambda key, x: net.init(key, x, False), jax.random.key(0), images), images


def count(net: Network, size: int | tuple[int, int]) -> tuple[int, int]:
  """Parameters, statistics of BatchNorm not counted, and multiply-accumulates of one image: nothing is computed.

  Args:
    size: height and width of the image, or a pair.

  >>> count(create('mobilenet_v2'), 224)
  (3504872, 300774272)
  """
  variables, images = shapes(net, size)
  found = profile(lambda variables, x: net.apply(variables, x, False), variables, images)
  parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables['params']))
  return parameters, sum(counts(row).macs for row in found.rows)
