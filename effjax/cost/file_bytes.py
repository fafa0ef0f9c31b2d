"""Bytes of the whole file: weights and what the format says of them."""
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.cost.expect import keep_of, present
from effjax.cost.flash_bytes import distinct, flash_bytes
from effjax.graph.profile import Profile, entries
from effjax.reparam import Fact
from effjax.tree import Path

QUANTIZATION = 8 + 4 + 8  # per output channel: the codes' zero point (int64), and scale and zero point of the bias
PER_KERNEL, PER_FILE = 339, 652  # tensors, buffers, names and operators: a fit, see the docstring


def file_bytes(profile: Profile, facts: dict[Path, Fact]) -> Float[Array, '']:
  """Expected size of the integer .tflite file: `flash + sum_rows P(row) (20 output channels + 339) + 652`.

  Beside codes, scales and biases (`flash_bytes`) a file stores 20 bytes for each output channel, which the format asks
  for and no kernel reads, and the description of tensors and operators. That part is a least-squares fit to files of
  seven random networks (litert-converter 0.5.0, 5 to 13 kernels), which it meets to 1 %, and those of `effjax joint` to
  3 %: an addition, a pooling or a mean, which have no row here, is another 150 bytes or so. In small networks all this
  is as large as the weights.

  Args:
    profile, facts: as for `macs`.

  >>> from effjax.graph import profile
  >>> found = profile(lambda p, x: x @ p['w'], {'w': jnp.ones((3, 4))}, jnp.ones((1, 3)))
  >>> file_bytes(found, {'w': Fact(bits=jnp.float32(8))})
  Array(1115., dtype=float32)
  """
  rows = distinct(profile)
  channels = entries([row.out_axes[-1:] for row in rows], keep_of(facts))
  stored = jnp.asarray([row.stored for row in rows], jnp.float32)
  described = present(rows, facts) * stored * (QUANTIZATION * channels + PER_KERNEL)
  return flash_bytes(profile, facts) + jnp.sum(described) + jnp.float32(PER_FILE)
