"""The integer network: what the file for the device computes, as plain data."""
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from effjax.errors import EffjaxError

ARRAYS = ('codes', 'scales', 'bias')
WEIGHTED = frozenset({'conv', 'depthwise', 'dense', 'transpose_conv'})
ACTIVATIONS = {'': (-np.inf, np.inf), 'relu': (0., np.inf), 'relu6': (0., 6.), 'relu_n1_to_1': (-1., 1.)}


class Tensor(NamedTuple):
  """An integer activation: `real = scale (code - zero_point)`. `shape` is for a batch of one.

  bits: 8; 16, with zero point 0; or 32 for plain integers (an argmax), whose scale is 1.
  """
  name: str
  shape: tuple[int, ...]
  scale: float
  zero_point: int
  bits: int = 8


class Node(NamedTuple):
  """One integer kernel.

  op: with weights conv, depthwise, dense, transpose_conv; of two tensors add, sub, mul, matmul; concat, constant;
    mean, sum, reduce_max, argmax; max_pool, average_pool, resize_nearest, resize_bilinear; reshape, broadcast,
    transpose, slice, pad, clamp, quantize (to another range); element by element logistic, tanh, hard_swish, gelu,
    leaky_relu, elu, exp, log, sqrt, rsqrt, abs; over the last axis softmax, log_softmax.
  inputs: indices of tensors: those of the network's inputs come first, then each node's output.
  output: what it makes, after `activation` ('', relu, relu6 or relu_n1_to_1).
  settings: strides, padding, axes ...: numbers and tuples of numbers.
  codes, scales, bias, bits: of a kernel with weights: int8 codes (HWIO or IO), a float32 scale for each output channel,
    int32 biases (int64 after int16 inputs) in units of `input scale * scales`, bits per code as trained. A constant
    has codes only.
  """
  op: str
  inputs: tuple[int, ...]
  output: Tensor
  activation: str
  settings: dict[str, Any]
  codes: np.ndarray | None = None
  scales: np.ndarray | None = None
  bias: np.ndarray | None = None
  bits: int = 8


class Network(NamedTuple):
  """inputs: the tensors that are given. nodes: in execution order. outputs: indices of tensors."""
  inputs: tuple[Tensor, ...]
  nodes: tuple[Node, ...]
  outputs: tuple[int, ...]

  @property
  def tensors(self) -> tuple[Tensor, ...]:
    """Every activation: inputs, then each node's output."""
    return (*self.inputs, *(node.output for node in self.nodes))


def weight_bytes(network: Network) -> int:
  """Bytes of the weights in flash: int4 codes two to a byte, an int32 bias and a float32 scale for each output."""
  return sum(node_bytes(node) for node in network.nodes if node.op in WEIGHTED)


def node_bytes(node: Node) -> int:
  """The same of one kernel with weights."""
  return -(-node.codes.size * container(node) // 8) + 4 * node.scales.size + node.bias.nbytes


def macs(node: Node) -> int:
  """Multiply-accumulates of one kernel with weights: each output position reads every code once."""
  return int(np.prod(node.output.shape[:-1])) * node.codes.size


def one_scale(node: Node) -> bool:
  """Whether the file has one scale for all outputs: in dense layers where they are equal.

  Not in those of 2 bits and several outputs: XNNPACK's int2 kernel needs one for each.
  """
  equal = node.op == 'dense' and bool((node.scales == node.scales[0]).all())
  return equal and (node.bits > 2 or node.scales.size == 1)


def container(node: Node, *, int2: bool = False) -> int:
  """Bits of the file's integer type that holds each code of a node: the narrowest that its kernel runs.

  4 or 8; 2 for a dense layer of 2 bits with 4, 8, ... inputs and several outputs, if the runtime has such a kernel
  (`int2`); 8 for a transposed convolution, and for a depthwise one of 16-bit activations.
  """
  if int2 and node.op == 'dense' and node.bits <= 2 and node.codes.shape[0] % 4 == 0 and node.scales.size > 1:
    return 2
  wide = node.op == 'transpose_conv' or (node.op == 'depthwise' and node.output.bits == 16)
  return 4 if node.bits <= 4 and not wide else 8


def save(network: Network, path: str | Path) -> None:
  """Writes the network to one .npz file (no pickle)."""
  header = {'inputs': network.inputs, 'outputs': network.outputs,
            'nodes': [node._replace(**dict.fromkeys(ARRAYS)) for node in network.nodes]}
  arrays = {f'{name}_{i}': getattr(node, name) for i, node in enumerate(network.nodes) for name in ARRAYS
            if getattr(node, name) is not None}
  with open(path, 'wb') as file:
    np.savez(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)


def load(path: str | Path) -> Network:
  """Reads what `save` wrote.

  Raises:
    EffjaxError: the file is missing or is not a saved network.
  """
  try:
    with open(path, 'rb') as file, np.load(file, allow_pickle=False) as saved:
      arrays = dict(saved)
    header = json.loads(arrays['header'].tobytes())
    nodes = [_node(fields, {name: arrays.get(f'{name}_{i}') for name in ARRAYS})
             for i, fields in enumerate(header['nodes'])]
    return Network(tuple(map(_tensor, header['inputs'])), tuple(nodes), tuple(header['outputs']))
  except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
    raise EffjaxError(f'{path} is not a saved network ({type(error).__name__}: {error}): export it again') from error


def _tensor(fields: Sequence) -> Tensor:
  name, shape, *rest = fields
  return Tensor(name, tuple(shape), *rest)


def _node(fields, arrays):
  node = Node(*fields)
  return node._replace(inputs=tuple(node.inputs), output=_tensor(node.output), settings=_tuples(node.settings),
                       **arrays)


def _tuples(value):
  if isinstance(value, dict):
    return {name: _tuples(part) for name, part in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, list) else value
