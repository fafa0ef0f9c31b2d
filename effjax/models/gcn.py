"""Global convolutional network: Peng, Zhang, Yu, Luo, Sun, CVPR 2017, arXiv:1703.02719, survey [17]; on a ResNet."""
import functools

from effjax.errors import EffjaxError
from effjax.layers.block import round_channels
from effjax.layers.bottleneck import EXPANSION
from effjax.layers.boundary_refinement import BoundaryRefinement
from effjax.layers.conv_transpose import ConvTranspose
from effjax.layers.global_convolution import GlobalConvolution
from effjax.models.resnet import DEPTHS, ResNet
from effjax.models.variant import Variant


class GCN(ResNet):
  """Semantic segmentation with large kernels: logits `[n, h, w, num_classes]` of every pixel.

  A `GlobalConvolution` and a `BoundaryRefinement` make scores of each of the four stages of a ResNet. From the last
  stage on, a transposed 4x4 convolution doubles the scores' size, those of the stage before are added, and a boundary
  refinement follows; two more doublings reach the image's size. The paper states no counts. Parameters of the ResNet
  have the paths that they have there. Intermediates: `stage1` to `stage4`, and the scores `scores1` to `scores4`.

  Args:
    kernel: of the global convolutions; the paper's best is 15.
    others: as in `ResNet`, of which the classifier is left out.

  Raises:
    EffjaxError: as in `Network`; a height or width that 32 does not divide.

  >>> import jax, jax.numpy as jnp
  >>> net = GCN(5, width=.125, depths=(1, 1, 1, 1), kernel=5)
  >>> jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), jnp.ones((1, 32, 64, 3)), False))[0].shape
  (1, 32, 64, 5)
  """
  num_classes: int = 21
  kernel: int = 15

  def forward(self, x, train):
    """The stages, then their scores from the last to the first."""
    if x.shape[1] % 32 or x.shape[2] % 32:
      raise EffjaxError(f'GCN: height and width {x.shape[1:3]} are no multiples of 32: pad or resize the images')
    scores = None
    for i, stage in reversed(list(enumerate(self._stages(x, train), 1))):
      large = GlobalConvolution(self.num_classes, self.kernel, name=f'global{i}', **self.same)
      lateral = self._refined(large(stage), i)
      scores = lateral if scores is None else self._refined(lateral + self._doubled(scores, i), f'sum{i}')
      self.mark(f'scores{i}', scores)
    for name in ('half', 'whole'):
      scores = self._refined(self._doubled(scores, name), name)
    return scores

  def _stages(self, x, train):
    """The outputs of the ResNet's stages."""
    width, channels = EXPANSION if self.bottleneck else 1, round_channels(self.features[0] * self.width)
    x = self._stem(channels, x, train)
    for i, (features, depth) in enumerate(zip(self.features, self.depths), 1):
      for j in range(1, depth + 1):
        wanted, strides = width * round_channels(features * self.width), 2 if i > 1 and j == 1 else 1
        shortcut = self.shortcut if strides > 1 or channels != wanted else 'identity'
        x, channels = self._block(features, strides, shortcut, f'stage{i}_block{j}')(x, train), wanted
      yield self.mark(f'stage{i}', x)

  def _refined(self, scores, name):
    return BoundaryRefinement(name=f'refine_{name}', **self.same)(scores)

  def _doubled(self, scores, name):
    return ConvTranspose(self.num_classes, 4, name=f'up_{name}', **self.same)(scores)


VARIANTS = {f'gcn_resnet{depth}': Variant(functools.partial(GCN, depths=DEPTHS[depth]), 512) for depth in (50, 152)}
