"""A network of the list, with what its paper says of it."""
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn


class Variant(NamedTuple):
  """make: called with `num_classes`, `width` and the other fields of the network. size: height and width of the images
  that it is counted at. paper: parameters and multiply-accumulates that the paper states, or ''.
  """
  make: Callable[..., nn.Module]
  size: int = 224
  paper: str = ''
