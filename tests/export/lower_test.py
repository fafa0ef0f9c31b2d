import sys

import jax
import jax.numpy as jnp
import numpy as np

from effjax.export import simulate
from effjax.export.lower import function


def fake_quantized(x, scale, zero_point, bits, *, narrow, axis=None):
  """What the composite stands for; weights are on their codes already."""
  z = np.float32(zero_point)
  return x if narrow else (jnp.clip(jnp.round(x / scale) + z, -128, 127) - z) * jnp.float32(scale)


def test_lowered_function_is_the_network(ready, some, monkeypatch):
  given = ready(some)
  network = given.network()
  monkeypatch.setattr(sys.modules['effjax.export.lower'], 'fake_quant', fake_quantized)
  scale = network.tensors[network.outputs[0]].scale
  exact = jax.jit(function(network))(given.x[:1])[0]
  assert np.abs(np.asarray(exact - simulate(network, given.x[:1]))).max() < 2.5 * scale


def test_every_tensor_and_weight_is_a_composite(ready, some):
  network = ready(some).network()
  text = jax.jit(function(network)).lower(jax.ShapeDtypeStruct((1, 12, 12, 3), np.float32)).as_text()
  weights = sum(node.codes is not None for node in network.nodes)
  assert text.count('stablehlo.composite "quant.fake_quant"') == len(network.tensors) + weights
