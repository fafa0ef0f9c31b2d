"""From a float function and its facts to the integer network that a device runs."""
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from effjax import tree
from effjax.errors import EffjaxError
from effjax.export import operators, storing
from effjax.export.kernels import Kernel, Pending, Stored, codes_of
from effjax.export.network import Network, Node, Tensor
from effjax.graph.places import find, only_clamps, placed
from effjax.graph.trace import CUSTOM, Const, Eqn, users
from effjax.graph.trace import weights as weight_paths
from effjax.reparam import Fact
from effjax.tree import Path, PyTree

_ONLY8 = frozenset({'hard_swish', 'elu', 'log_softmax', 'argmax', 'sqrt'})  # of kernels with int8 activations
_MOST_AXES = {'pad': 5}  # of kernels that take fewer than 6

Range = tuple  # (scale, zero_point, bits): numbers or scalar arrays


def finalize(fn: Callable, weights: PyTree, facts: dict[Path, Fact], ranges: dict[str, Range],
             *args: PyTree) -> Network:
  """The integer network of `fn(weights, *args)`, an inference function. Nothing is calibrated or rounded again.

  What does not depend on `args` is computed now. Each convolution and dot product keeps the codes of its weight;
  constants per channel that follow it (bias, BatchNorm, a multiplication) fold into its scales and its bias:
  `y = clip(gain s_in s_w acc + bias)`, bias rounded to int32 in units of `s_in s_w`. A negative gain flips the codes.

  Args:
    fn: any JAX function, BatchNorm with running statistics; axis 0 of activations is the batch.
    weights: its parameters; every leaf in `facts` equals code * scale.
    facts: for each kernel, by path, its hard bits and scale (see `effjax.reparam.Fact`).
    ranges: for each tap's range (`effjax.graph.taps`), (scale, zero_point, bits) of its quantizer: all of 8 bits, or
      all of 16 with zero point 0.
    args: examples or `jax.ShapeDtypeStruct`s, batch first; the network is for any batch.

  Raises:
    EffjaxError: an equation that has no integer kernel (named, with its scope and the reason); a kernel without a
      fact or whose values are not codes times scales; a tap without a range, an unknown range, other bits.

  >>> import jax.numpy as jnp
  >>> weights = {'fc': {'w': jnp.array([[1., -.5]])}}
  >>> network = finalize(lambda p, x: x @ p['fc']['w'], weights, {'fc/w': Fact(bits=4, scale=jnp.float32(.5))},
  ...                    {'input': (.01, 0, 8), 'fc': (.02, 0, 8)}, jnp.ones((1, 1)))
  >>> network.nodes[0].codes, network.nodes[0].scales
  (array([[ 2, -1]], dtype=int8), array([0.5, 0.5], dtype=float32))
  """
  one = lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]) if x.shape else (), x.dtype)
  program = placed(fn, weights, *jax.tree.map(one, args))
  found = {tap.var: tap for tap in find(program)}
  check_ranges({tap.range for tap in found.values()}, ranges)
  return _Walk(program, found, ranges).run(weights, facts)


def check_ranges(known: set[str], ranges: dict[str, Range]) -> None:
  """Every range is that of a tap, and one that an int8 kernel can hold."""
  widths = {int(bits) for _, _, bits in ranges.values()}
  for name, (scale, zero_point, bits) in ranges.items():
    if name not in known:
      raise EffjaxError(f'finalize: range {name!r} belongs to no tap of the function: choose from {sorted(known)}')
    if int(bits) not in (8, 16) or (len(widths) > 1 and widths <= {8, 16}):
      raise EffjaxError(f'finalize: range {name!r} has {bits} bits, wanted 8 of all, or 16 of all: kernels store '
                        'activations as int8 or int16')
    zeros = range(-128, 128) if int(bits) == 8 else (0,)
    if not (math.isfinite(scale) and scale > 0 and zero_point in zeros):
      raise EffjaxError(f'finalize: range {name!r} has scale {scale} and zero point {zero_point}, wanted a positive '
                        f'scale and {"an integer in -128..127" if len(zeros) > 1 else "0"}: round and clip it')


class _Walk:
  """The equations one by one: concrete ones are computed, the others become kernels that round at the next tap."""

  def __init__(self, program, found, ranges):
    self.program, self.found, self.ranges = program, found, ranges
    self.weights, self.readers = weight_paths(program), _readers(program)
    self.bits = max((int(bits) for _, _, bits in ranges.values()), default=8)
    self.inputs: list[Tensor] = []
    self.nodes: list[Node] = []

  def run(self, weights, facts) -> Network:
    env = {v: self.input(v) for v in self.program.inputs[len(self.program.paths):]}
    for v, (path, w) in zip(self.program.inputs, tree.leaves(weights).items()):
      env[v] = kernel(path, w, facts[path]) if path in facts and facts[path].scale is not None else self.tap(v, w, None)
    self.walk(self.program.eqns, env)
    outputs = [self.output(v.value if isinstance(v, Const) else env[v]) for v in self.program.outputs]
    return pruned(Network(tuple(self.inputs), tuple(self.nodes), tuple(outputs)))

  def input(self, v) -> Stored:
    if v not in self.found:
      raise EffjaxError(f'finalize: an input of shape {self.program.avals[v].shape} does not reach an output, or is '
                        'not floating point: give only the images')
    tensor = self.tensor(self.found[v], self.program.avals[v].shape)
    self.inputs.append(tensor)
    return Stored(len(self.inputs) - 1, tensor.shape)

  def output(self, value) -> int:
    if not isinstance(value, Stored):
      raise EffjaxError('finalize: an output does not depend on the input: return only what the device computes')
    return value.index

  def walk(self, eqns, env):
    for eqn in eqns:
      args = [v.value if isinstance(v, Const) else env[v] for v in eqn.inputs]
      outputs = self.scan(eqn, args) if eqn.name == 'scan' else self.visit(eqn, args)
      env.update({v: self.tap(v, out, eqn) for v, out in zip(eqn.outputs, outputs, strict=True)})

  def scan(self, eqn: Eqn, args: list) -> list:
    """A loop, written out: each iteration has its own kernels."""
    first, end, made = eqn.carry.start, eqn.carry.stop, []
    carry, steps = list(args[first:end]), range(eqn.params['length'])
    for i in reversed(steps) if eqn.params['reverse'] else steps:
      env = dict(zip(eqn.body.inputs, [*args[:first], *carry, *(operators.at(x, i) for x in args[end:])], strict=True))
      self.walk(eqn.body.eqns, env)
      out = [v.value if isinstance(v, Const) else env[v] for v in eqn.body.outputs]
      carry, made = out[:len(carry)], [*made, out[len(carry):]]
    made = made[::-1] if eqn.params['reverse'] else made
    return [*carry, *(operators.stack(self, eqn, parts) for parts in zip(*made))]

  def visit(self, eqn: Eqn, args: list) -> list:
    if not any(isinstance(arg, Stored | Pending) for arg in args):
      return operators.concrete(eqn, args)
    if only_clamps(eqn):
      return [operators.clamp(self, eqn, args)]
    if eqn.name in CUSTOM:
      env = dict(zip(eqn.body.inputs, args, strict=True))
      self.walk(eqn.body.eqns, env)
      return [v.value if isinstance(v, Const) else env[v] for v in eqn.body.outputs]
    handler = operators.HANDLERS.get(eqn.name)
    if handler is None:
      raise self.refusal(eqn, 'no such kernel')
    out = handler(self, eqn, args)
    return out if isinstance(out, list) else [out]

  def refusal(self, eqn: Eqn, reason: str) -> EffjaxError:
    return EffjaxError(f'finalize: {eqn.name} in {eqn.scope or "the function"!r} cannot run on integers: {reason}')

  def stored(self, value: Any, eqn: Eqn) -> Stored:
    """An operand as integers, or a refusal; one that is broadcast is written out."""
    value = self.broadcastable(value, eqn)
    made = self.tensors(value)
    if value.shape == made.shape:
      return value
    output = made._replace(name=self.unused(f'{made.name}/broadcast'), shape=value.shape)
    return self.append(Node('broadcast', (value.index,), output, '', {}))

  def broadcastable(self, value: Any, eqn: Eqn) -> Stored:
    """The same for kernels that broadcast: the tensor may be smaller than its shape here."""
    if isinstance(value, Stored):
      return value
    what = f'the result of {value.op}' if isinstance(value, Pending) else 'a constant'
    shape = np.shape(value.value) if isinstance(value, Kernel) else np.shape(value)
    shape = value.shape if isinstance(value, Pending) else shape
    raise self.refusal(eqn, f'its operand, {what} of shape {shape}, is not stored as integers here')

  def emit(self, op: str, source: Stored, shape: tuple, settings: dict[str, Any]) -> Stored:
    """A kernel that keeps the scale of its input."""
    made = self.tensors(source)
    output = made._replace(name=self.unused(f'{made.name}/{op}'), shape=tuple(shape))
    return self.append(Node(op, (source.index,), output, '', settings))

  def unused(self, name: str) -> str:
    """The name, numbered if a tensor has it."""
    taken = {tensor.name for tensor in (*self.inputs, *(node.output for node in self.nodes))}
    return next(n for n in (name, *(f'{name}_{i}' for i in range(1, len(taken) + 1))) if n not in taken)

  def maker(self, value: Stored) -> Node | None:
    """The node that made a tensor; None for an input."""
    return self.nodes[value.index - len(self.inputs)] if value.index >= len(self.inputs) else None

  def append(self, node: Node) -> Stored:
    if self.bits == 16 and (node.op in _ONLY8 or (node.op == 'clamp' and node.activation == 'relu_n1_to_1')):
      raise EffjaxError(f'finalize: {node.output.name!r}: {node.op} has no kernel for 16-bit activations: use 8 bits, '
                        'or another function')
    most, shapes = _MOST_AXES.get(node.op, 6), [self.tensors(Stored(i, ())).shape for i in node.inputs]
    rank = max(map(len, shapes), default=0)
    if rank > most:
      raise EffjaxError(f'finalize: {node.output.name!r}: {node.op} of {rank} axes has no kernel: wanted at most '
                        f'{most}, merge some')
    self.nodes.append(node)
    return Stored(len(self.inputs) + len(self.nodes) - 1, node.output.shape)

  def tensors(self, value: Stored) -> Tensor:
    made = self.inputs + [node.output for node in self.nodes]
    return made[value.index]

  def tensor(self, tap, shape) -> Tensor:
    if tap.range not in self.ranges:
      raise EffjaxError(f'finalize: no range for tap {tap.range!r}: quantize it (effjax.quantize.activations)')
    scale, zero_point, bits = self.ranges[tap.range]
    return Tensor(self.unused(tap.name), tuple(shape), float(np.float32(scale)), int(zero_point), int(bits))

  def tap(self, v, value, eqn):
    """The value rounded, if a tap is here; a constant becomes a tensor."""
    if v not in self.found or not isinstance(value, Stored | Pending):
      held = v in self.found and self.found[v].kind == 'constant'
      return operators.constant(self, self.found[v], value) if held else value
    if isinstance(value, Stored):
      return self.retap(v, value, eqn)
    return storing.store(self, value, self.tensor(self.found[v], value.shape), eqn)

  def retap(self, v, value, eqn):
    """A second quantizer on integers: fine if it is the same one."""
    old, new = self.tensors(value), self.tensor(self.found[v], value.shape)
    if (old.scale, old.zero_point) != (new.scale, new.zero_point):
      raise self.refusal(eqn, f'tap {new.name!r} rounds {old.name!r} a second time, with another range: remove one')
    return value


def _readers(program) -> dict:
  """The equations that read each variable, None for an output; those of loops too."""
  found = {v: [program.eqns[i] if i >= 0 else None for i in used] for v, used in users(program).items()}
  for eqn in program.eqns:
    found |= _readers(eqn.body) if eqn.name == 'scan' else {}
  return found


def kernel(path: Path, value: Any, fact: Fact) -> Kernel:
  """A weight leaf as codes; see `finalize`."""
  codes, bits = codes_of('finalize', path, value, fact)
  scale = np.broadcast_to(np.asarray(fact.scale, np.float32), codes.shape)
  return Kernel(path, bits, np.asarray(value, np.float32), codes, scale)


def pruned(network: Network) -> Network:
  """The network without kernels that no output needs."""
  first = len(network.inputs)
  needed = set(network.outputs)
  for i, node in reversed(list(enumerate(network.nodes))):
    needed.update(node.inputs if first + i in needed else ())
  kept = [*range(first), *(first + i for i in range(len(network.nodes)) if first + i in needed)]
  at = {old: new for new, old in enumerate(kept)}
  nodes = tuple(node._replace(inputs=tuple(at[i] for i in node.inputs))
                for i, node in enumerate(network.nodes) if first + i in needed)
  return network._replace(nodes=nodes, outputs=tuple(at[i] for i in network.outputs))
