import jax
import numpy as np

from effjax.export.lower import function


def test_lowered_function_is_the_network_up_to_rounded_biases(ready, some):
  given = ready(some)
  exact = given.fn(given.weights, given.x[:1])
  np.testing.assert_allclose(jax.jit(function(given.network()))(given.x[:1])[0], exact, atol=.01, rtol=.01)


def test_every_tensor_and_weight_is_a_composite(ready, some):
  network = ready(some).network()
  text = jax.jit(function(network)).lower(jax.ShapeDtypeStruct((1, 12, 12, 3), np.float32)).as_text()
  weights = sum(node.codes is not None for node in network.nodes)
  assert text.count('stablehlo.composite "quant.fake_quant"') == len(network.tensors) + weights
