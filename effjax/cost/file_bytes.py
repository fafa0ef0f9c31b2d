"""Bytes of the whole file: weights and what the format says of them."""
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.cost.expect import keep_of, present
from effjax.cost.flash_bytes import distinct, flash_bytes
from effjax.graph.profile import Profile, entries
from effjax.reparam import Fact
from effjax.tree import Path

QUANTIZATION = 4  # per output channel: the scale of its bias
PER_KERNEL, PER_FILE = 257, 1024  # tensors, buffers and operators, of a kernel with weights and of all else: a fit


def file_bytes(profile: Profile, facts: dict[Path, Fact]) -> Float[Array, '']:
  """Expected size of the integer .tflite file: `flash + sum_rows P(row) (4 output channels + 257) + 1024`.

  Beside codes, scales and biases (`flash_bytes`) a file stores the bias' scale for each output channel, and the
  description of tensors and operators. That part is a least-squares fit to the files of the 22 networks in
  `tests/export/networks.py`, 3 to 19 kernels each, which it meets to 12 % if 110 bytes are added for each addition,
  pooling or other operator without weights; these have no row here. In small networks all this is as large as the
  weights.

  Args:
    profile, facts: as for `macs`.

  >>> from effjax.graph import profile
  >>> found = profile(lambda p, x: x @ p['w'], {'w': jnp.ones((3, 4))}, jnp.ones((1, 3)))
  >>> file_bytes(found, {'w': Fact(bits=jnp.float32(8))})
  Array(1341., dtype=float32)
  """
  rows = distinct(profile)
  channels = entries([row.out_axes[-1:] for row in rows], keep_of(facts))
  stored = jnp.asarray([row.stored for row in rows], jnp.float32)
  described = present(rows, facts) * stored * (QUANTIZATION * channels + PER_KERNEL)
  return flash_bytes(profile, facts) + jnp.sum(described) + jnp.float32(PER_FILE)
