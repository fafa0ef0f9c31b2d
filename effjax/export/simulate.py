"""What the file computes, in JAX: integer codes in, exact accumulators, the rounding of the device's kernels."""
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.export.network import Network, Tensor
from effjax.export.reference import KERNELS, KERNELS16

Images = Float[Array, 'n *s'] | Float[np.ndarray, 'n *s']

_SETS = ('xnnpack', 'builtin')


def simulate(network: Network, x: Images | tuple[Images, ...], *, kernels: str = 'xnnpack', codes: bool = False,
             collect: bool = False):
  """The network's outputs for real inputs: those of LiteRT's kernels on x86, code for code.

  Accumulators are exact integers; how they are rounded is in `effjax/export/reference`, per kernel.

  Args:
    network: from `effjax.export.finalize`.
    x: a batch; a tuple of batches if the network has several inputs.
    kernels: `xnnpack`, LiteRT's default: XNNPACK's kernels, and the builtin ones for what XNNPACK has not; or
      `builtin`: those alone.
    codes: give the stored integers instead of real values.
    collect: also give every tensor by name, `(outputs, {name: tensor})`.

  Raises:
    EffjaxError: an input whose shape is not that of the network; unknown kernels.
  """
  if kernels not in _SETS:
    raise EffjaxError(f'simulate: kernels {kernels!r} are unknown: choose from {_SETS}')
  tensors = [quantized(*given) for given in zip(network.inputs, x if isinstance(x, tuple) else (x,), strict=True)]
  for node in network.nodes:
    sources = [network.tensors[i] for i in node.inputs]
    wide = 16 in (node.output.bits, *(source.bits for source in sources))
    kernel = (KERNELS16 if wide else KERNELS)[node.op]
    tensors.append(kernel(node, sources, [tensors[i] for i in node.inputs], kernels))
  values = [(_codes if codes else _real)(*pair) for pair in zip(network.tensors, tensors, strict=True)]
  out = tuple(values[i] for i in network.outputs)
  out = out[0] if len(out) == 1 else out
  return (out, {t.name: value for t, value in zip(network.tensors, values, strict=True)}) if collect else out


def quantized(tensor: Tensor, x: Images) -> jax.Array:
  """The int32 codes of a real input."""
  x, top = jnp.asarray(x), 2 ** (tensor.bits - 1)
  if x.shape[1:] != tensor.shape[1:]:
    raise EffjaxError(f'simulate: input {tensor.name!r} has shape {x.shape}, wanted (n, {str(tensor.shape[1:])[1:]}')
  rounded = jnp.clip(jnp.round(x.astype(jnp.float32) / jnp.float32(tensor.scale)), -1e9, 1e9)
  return jnp.clip(rounded.astype(jnp.int32) + tensor.zero_point, -top, top - 1)


def _codes(tensor, q):
  return q.astype(f'int{tensor.bits}')


def _real(tensor, q):
  return q if tensor.bits == 32 else (q - tensor.zero_point).astype(jnp.float32) * jnp.float32(tensor.scale)
