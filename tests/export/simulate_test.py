import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.export import simulate, tflite, verify
from effjax.export.network import Network, Node, Tensor


def two(op, settings=None, activation='', output=(.05, 3)):
  shape = (1, 4, 4, 8)
  inputs = (Tensor('a', shape, .03, -7), Tensor('b', shape, .02, 15))
  return Network(inputs, (Node(op, (0, 1), Tensor('y', shape, *output), activation, settings or {}),), (2,))


@pytest.mark.parametrize('op', ['add', 'mul'])
@pytest.mark.parametrize('activation', ['', 'relu', 'relu6', 'relu_n1_to_1'])
def test_sums_and_products_are_those_of_the_device(op, activation, tmp_path):
  network = two(op, activation=activation)
  random = np.random.default_rng(0)
  x = tuple(random.uniform(-2, 2, (200, 4, 4, 8)).astype(np.float32) for _ in range(2))
  tflite(network, tmp_path / 'model.tflite')
  report = verify(tmp_path / 'model.tflite', network, x)
  assert report.xnnpack.codes_equal == 1 and not report.audit_problems
  real = simulate(network, x)
  bounds = {'': (-9, 9), 'relu': (0, 9), 'relu6': (0, 6), 'relu_n1_to_1': (-1, 1)}[activation]
  exact = np.clip(x[0] + x[1] if op == 'add' else x[0] * x[1], *bounds)
  low, high = .05 * (-128 - 3), .05 * (127 - 3)
  assert np.abs(np.asarray(real) - np.clip(exact, low, high)).max() < .12


def test_codes_and_tensors_by_name(ready, some):
  given = ready(some)
  network = given.network()
  f = jax.jit(lambda x: simulate(network, x, codes=True, collect=True))
  out, tensors = f(given.x)
  output = network.tensors[network.outputs[0]]
  real = (np.asarray(out, np.float32) - np.float32(output.zero_point)) * np.float32(output.scale)
  assert out.dtype == jnp.int8
  assert set(tensors) == {tensor.name for tensor in network.tensors}
  assert len(tensors) == len(network.tensors)
  np.testing.assert_array_equal(jax.jit(lambda x: simulate(network, x))(given.x), real)


def test_wrong_input_shape_is_named():
  with pytest.raises(EffjaxError, match=r"simulate: input 'a' has shape \(2, 3\), wanted \(n, 4, 4, 8\)"):
    simulate(two('add'), (np.zeros((2, 3), np.float32), np.zeros((2, 4, 4, 8), np.float32)))
