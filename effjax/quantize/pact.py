"""PACT: activations clipped at a learned level."""
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax import tree
from effjax.errors import EffjaxError
from effjax.quantize.lsq_plus import SMALLEST_SCALE, ActivationQuantizer, fake_quantize, lsq_plus
from effjax.tree import PyTree


def pact(bits: int = 8) -> ActivationQuantizer:
  """`y = s round(clip(x, 0, alpha) / s)`, `s = alpha / (2^bits - 1)`: a ReLU and its quantizer in one.

  Gradient (equation 3): `dy/dx = [0 <= x < alpha]`, `dy/dalpha = [x >= alpha]`, a plain sum over all entries.

  `phi = {'alpha'}`, a float32 scalar. It only grows by the loss, as below alpha nothing is felt: train it with
  `pact_penalty`. Facts: the scale s (never below 1e-6) and the zero point -2^(bits-1): the integers are those of
  `lsq_plus(bits, zero_point=-2^(bits-1))` with this scale, and run on the same kernels.

  Values below 0 become 0. For a network whose taps are not all behind a ReLU, say what the others take:
  `lsq_plus(bits)._replace(from_zero=lambda: pact(bits))`.

  Args:
    bits: 2 to 8.

  Raises:
    EffjaxError: other bits.

  Differs from the paper: alpha starts at the range of least squared error on the samples that `init` is given, instead
  of at 10 everywhere; below the smallest scale the gradient of alpha still passes, so that it can recover.

  Source: Choi, Wang, Venkataramani, Chuang, Srinivasan, Gopalakrishnan, "PACT: Parameterized Clipping Activation for
  Quantized Neural Networks", 2018, arXiv:1805.06085.

  >>> quantizer = pact(2)
  >>> quantizer.apply({'alpha': jnp.float32(3.)}, jnp.array([-1., 1.2, 2.6, 9.]))
  Array([0., 1., 3., 3.], dtype=float32)
  """
  if not (isinstance(bits, int) and 2 <= bits <= 8):
    raise EffjaxError(f'pact: bits must be a whole number from 2 to 8, got {bits!r}: for 16 use quantize.lsq_plus(16)')
  steps, zero_point = 2**bits - 1, -2**(bits - 1)
  start = lambda samples: lsq_plus(bits, zero_point=zero_point).init(samples)['scale'] * steps
  return ActivationQuantizer(
      init=lambda samples: {'alpha': start(samples)},
      apply=lambda phi, x: _pact(x, phi['alpha'], bits),
      facts=lambda phi: (_scale(phi['alpha'], bits), jnp.int32(zero_point)), bits=bits)


def pact_penalty(ranges: PyTree, weight: float | Float[Array, '']) -> Float[Array, '']:
  """`weight sum alpha^2` over every `alpha` of a tree of ranges (section 3.1); float32.

  Args:
    ranges: as `activations` gives them, or the phi of one quantizer. Ranges of other quantizers add nothing.
    weight: of the penalty; the paper takes that of the weights' L2 regularisation.

  Raises:
    EffjaxError: no range has an alpha.

  >>> pact_penalty({'relu': {'alpha': jnp.float32(3.)}, 'fc': {'scale': jnp.float32(1.)}}, .5)
  Array(4.5, dtype=float32)
  """
  alphas = [leaf for path, leaf in tree.leaves(ranges).items() if path.split('/')[-1] == 'alpha']
  if not alphas:
    raise EffjaxError(f'pact_penalty: no alpha among the ranges {list(tree.leaves(ranges))}: quantize activations with '
                      'quantize.pact first')
  return sum((jnp.sum(jnp.square(a.astype(jnp.float32))) for a in alphas), jnp.float32(0)) * weight


def _scale(alpha, bits):
  return jnp.maximum(alpha.astype(jnp.float32) * (1 / (2**bits - 1)), SMALLEST_SCALE)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _pact(x, alpha, bits):
  low, high = -2**(bits - 1), 2**(bits - 1) - 1
  return fake_quantize(x.astype(jnp.float32), _scale(alpha, bits), jnp.int32(low), low, high).astype(x.dtype)


@_pact.defjvp
def _pact_jvp(bits, primals, tangents):
  (x, alpha), (dx, dalpha) = primals, tangents
  above = x.astype(jnp.float32) >= _scale(alpha, bits) * (2**bits - 1)
  moved = jnp.where(above, jnp.broadcast_to(dalpha.astype(x.dtype), x.shape), jnp.zeros_like(dx))
  return _pact(x, alpha, bits), moved + jnp.where((x >= 0) & ~above, dx, jnp.zeros_like(dx))
