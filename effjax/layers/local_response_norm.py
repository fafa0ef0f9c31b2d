"""Local response normalisation, which networks had before BatchNorm."""
import jax.numpy as jnp
from jaxtyping import Array, Float


def local_response_norm(x: Float[Array, '*n c'], size: int = 5, k: float = 2., alpha: float = 1e-4,
                        beta: float = .75) -> Float[Array, '*n c']:
  """`y_i = x_i / (k + alpha sum_j x_j^2)^beta` over the channels j with `|i - j| <= size // 2`: neighbours inhibit.

  The order of channels matters, so `graph.shrink` removes all channels that pass here, or none.

  Args:
    size: channels of the sum, an odd number.
    k, alpha, beta: the paper's. Caffe and PyTorch divide their alpha by `size`: for theirs give `alpha / size`.

  Source: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NeurIPS
  2012, survey [18].

  >>> local_response_norm(jnp.ones(3), size=3, alpha=1., beta=1.)
  Array([0.25, 0.2 , 0.25], dtype=float32)
  """
  channels, reach = x.shape[-1], size // 2
  padded = jnp.pad(jnp.square(x), [(0, 0)] * (x.ndim - 1) + [(reach, reach)])
  total = sum(padded[..., i:i + channels] for i in range(2 * reach + 1))
  return x * (k + alpha * total)**-beta
