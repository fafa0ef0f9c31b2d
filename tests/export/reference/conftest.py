"""Networks of one node: LiteRT runs its file, the reference its kernel."""
import jax
import numpy as np
import pytest

from effjax.export import litert, write
from effjax.export.network import Network, Node, Tensor
from effjax.export.reference import KERNELS


class OneNode:
  """A node, and what both make of it. `constants`: codes of those inputs that are constants, by position."""

  def __init__(self, op, sources, output, settings=None, activation='', constants=None, **weights):
    constants = constants or {}
    given = [t for i, t in enumerate(sources) if i not in constants]
    held = [Node('constant', (), sources[i], '', {}, codes=codes) for i, codes in constants.items()]
    place = {id(t): i for i, t in enumerate([*given, *(node.output for node in held)])}
    node = Node(op, tuple(place[id(t)] for t in sources), output, activation, settings or {}, **weights)
    self.network = Network(tuple(given), (*held, node), (len(given) + len(held),))

  def codes(self, seed=0) -> list[np.ndarray]:
    """Random int8 codes of every input that is no constant, the smallest and the largest among them."""
    random = np.random.default_rng(seed)
    drawn = [random.integers(-128, 128, t.shape) for t in self.network.inputs]
    for x in drawn:
      x.flat[0], x.flat[-1] = -128, 127
    return [x.astype(np.int8) for x in drawn]

  def file(self, codes, kernels) -> np.ndarray:
    """What LiteRT computes."""
    interpreter = litert.Interpreter(write.model(self.network), xnnpack=kernels == 'xnnpack')
    return interpreter.run(*codes)[0].astype(np.int32)

  def reference(self, codes, kernels) -> np.ndarray:
    """What the kernels of the reference compute, compiled as in a simulation."""
    def run(tensors):
      for node in self.network.nodes:
        sources = [self.network.tensors[i] for i in node.inputs]
        tensors = [*tensors, KERNELS[node.op](node, sources, [tensors[i] for i in node.inputs], kernels)]
      return tensors[-1]
    return np.asarray(jax.jit(run)([x.astype(np.int32) for x in codes]))

  def different(self, kernels, seed=0) -> int:
    """Codes of the output that are not equal."""
    codes = self.codes(seed)
    expected, got = self.file(codes, kernels), self.reference(codes, kernels)
    assert expected.shape == got.shape
    return int((expected != got).sum())


@pytest.fixture
def one_node():
  """The class `OneNode`."""
  return OneNode


@pytest.fixture
def tensor():
  """An int8 tensor from its shape, scale and zero point."""
  return lambda shape, scale, zero_point: Tensor('x', tuple(shape), float(np.float32(scale)), zero_point)
