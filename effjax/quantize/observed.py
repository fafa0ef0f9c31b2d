"""Ranges of activations that are observed, not trained: after training, or moved along with it (`update_ranges`)."""
from collections.abc import Callable

import jax
import jax.numpy as jnp

from effjax.errors import EffjaxError
from effjax.quantize.lsq_plus import ActivationQuantizer, lsq_plus, with_zero


def min_max(bits: int = 8) -> ActivationQuantizer:
  """The range that holds every sample and 0: `low = min(min x, 0)`, `high = max(max x, 0)`; [0, 1] where all are 0.

  The device's `s (clip(round(x / s) + z, qmin, qmax) - z)` with `s = (high - low) / (2^bits - 1)`,
  `z = round(qmin - low / s)`; at 16 bits `z = 0` and `s = max(-low, high) / 32767`. Gradient: `d/dx` as in `lsq_plus`,
  1 inside the range and 0 outside; none by the range, which stays where it was observed.

  `phi = {'low', 'high'}`, float32 scalars. Their gradient is 0: leave weight decay off them.

  Args:
    bits: 2 to 8, or 16.

  Raises:
    EffjaxError: other bits.

  Differs from the paper: no moving average of its own: `calibrate` pools batches, `update_ranges` averages them.

  Source: Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam, Kalenichenko, "Quantization and Training of Neural Networks for
  Efficient Integer-Arithmetic-Only Inference", CVPR 2018, arXiv:1712.05877.

  >>> quantizer = min_max()
  >>> phi = quantizer.init(jnp.array([-1., 4.1]))
  >>> [float(phi[name]) for name in ('low', 'high')], [int(fact) for fact in quantizer.facts(phi)[1:]]
  ([-1.0, 4.099999904632568], [-78])
  """
  return _observed(bits, lambda x: (jnp.min(x), jnp.max(x)))


def percentile(bits: int = 8, p: float = 99.99) -> ActivationQuantizer:
  """The range between the samples' percentiles `100 - p` and `p` (and 0): as `min_max` without the outliers.

  Gradient: as of `min_max`.

  Args:
    bits: 2 to 8, or 16.
    p: above 50, up to 100; linear between two samples.

  Raises:
    EffjaxError: other bits; p outside (50, 100].

  Differs from the paper: both ends, so that signed activations lose outliers on either side.

  Source: McKinstry, Esser, Appuswamy, Bablani, Arthur, Yildiz, Modha, "Discovering Low-Precision Networks Close to
  Full-Precision Networks for Efficient Embedded Inference", 2018, arXiv:1809.04191.

  >>> float(percentile(8, 90.).init(jnp.arange(101.))['high'])
  90.0
  """
  if not 50 < p <= 100:
    raise EffjaxError(f'percentile: p must be above 50 and at most 100, got {p}: 99.99 leaves out one value in 10000')

  def ends(x):
    ordered = jnp.sort(x.ravel())
    return _between(ordered, (x.size - 1) * (1 - p / 100)), _between(ordered, (x.size - 1) * p / 100)

  return _observed(bits, ends)


def mse(bits: int = 8) -> ActivationQuantizer:
  """The range of least squared error on the samples, of the 25 that the initialisation of `lsq_plus` tries.

  Gradient: as of `min_max`.

  Args:
    bits: 2 to 8, or 16.

  Raises:
    EffjaxError: other bits.

  Source: the search of Nagel, Fournarakis, Amjad, Bondarenko, van Baalen, Blankevoort, "A White Paper on Neural Network
  Quantization", 2021, arXiv:2106.08295, section 3.1.

  >>> x = jnp.append(jnp.linspace(-1., 1., 1000), 3.)
  >>> bool(mse(2).init(x)['high'] < min_max(2).init(x)['high'])
  True
  """
  fit, low, high = lsq_plus(bits), *_codes(bits)

  def ends(x):
    phi = fit.init(x)
    zero = phi.get('offset', jnp.float32(0))
    return phi['scale'] * (low - zero), phi['scale'] * (high - zero)

  return _observed(bits, ends)


def _observed(bits: int, ends: Callable) -> ActivationQuantizer:
  """A quantizer whose range is `ends(samples)`, widened to hold 0; [0, 1] where they are 0."""
  learned, (low, high) = lsq_plus(bits), _codes(bits)

  def init(samples):
    return dict(zip(('low', 'high'), with_zero(*ends(samples.astype(jnp.float32)))))

  def grid(phi):
    smallest, largest = jax.lax.stop_gradient((phi['low'], phi['high']))
    if bits == 16:
      return {'scale': jnp.maximum(-smallest, largest) * (1 / high)}
    scale = (largest - smallest) * (1 / (high - low))
    inverse = jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, jnp.ones_like(scale)), jnp.zeros_like(scale))
    return {'scale': scale, 'offset': low - smallest * inverse}

  return ActivationQuantizer(init, lambda phi, x: learned.apply(grid(phi), x), lambda phi: learned.facts(grid(phi)),
                             bits)


def _between(ordered, place):
  """The value at a place that may lie between two samples. It is known before tracing, in more than float32."""
  below = int(place)
  return ordered[below] + (ordered[min(below + 1, len(ordered) - 1)] - ordered[below]) * (place - below)


def _codes(bits):
  return -2**(bits - 1), 2**(bits - 1) - 1
