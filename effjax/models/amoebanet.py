"""AmoebaNet-A: Real, Aggarwal, Huang, Le, AAAI 2019, arXiv:1802.01548, survey [54]."""
import functools

from effjax.layers.cell import Genotype
from effjax.models import genotypes
from effjax.models.nasnet import NASNet
from effjax.models.variant import Variant


class AmoebaNet(NASNet):
  """NASNet's network with cells found by aging evolution: "AmoebaNet-A (N = repeats, F = features)".

  The genotype is that of the authors' code (tensorflow/tpu, models/official/amoeba_net), the stem of 32 channels too.
  The counts then round to what the paper prints, but for F = 448: 468 million parameters instead of 469, and its 104
  billion multiply-accumulates are those of images of 299, where those of F = 190 are of 331. For CIFAR no stem is
  stated: here it is NASNet's, of 3 F channels.

  Args: as in `NASNet`.

  >>> import jax, jax.numpy as jnp
  >>> net = AmoebaNet(10, features=4, repeats=1, stem=8)
  >>> jax.eval_shape(lambda key: net.init_with_output(key, jnp.ones((1, 32, 32, 3)), False)[0], jax.random.key(0)).shape
  (1, 10)
  """
  genotype: Genotype = genotypes.AMOEBANET_A
  features: int = 50


VARIANTS = {
    'amoebanet_a_mobile': Variant(AmoebaNet, 224, '5.1 M, 555 M'),
    'amoebanet_a_n6_f190': Variant(functools.partial(AmoebaNet, features=190, repeats=6), 331, '86.7 M, 23.1 B'),
    'amoebanet_a_n6_f448': Variant(functools.partial(AmoebaNet, features=448, repeats=6), 299, '469 M, 104 B'),
    'amoebanet_a_cifar': Variant(functools.partial(AmoebaNet, num_classes=10, features=36, repeats=6, stem=108,
                                                   imagenet=False), 32, '3.2 M')}
