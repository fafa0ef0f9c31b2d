"""Measured milliseconds: of a file, and of single operators for `cost.latency`."""
import datetime
import importlib.metadata
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from effjax.cost.latency_table import FORMATS, Entry, LatencyTable, Op
from effjax.cost.operator import ends, operator
from effjax.errors import EffjaxError
from effjax.export import layouts
from effjax.export.float_formats import float_tflite
from effjax.export.litert import CONVERTER, RUNTIME, Interpreter
from effjax.export.network import Network, Node, Tensor
from effjax.export.tflite import tflite
from effjax.graph.profile import Profile

BITS = {name: bits for bits, name in FORMATS.items()}
ROUND_MS = 2.  # of each file in each round: enough invocations to fill it


def latency_ms(path: str | Path, runs: int = 100) -> float:
  """Median milliseconds of one inference of the file, batch 1, one thread, XNNPACK, on this machine.

  What is timed is the invocation, without the copies of inputs and outputs.
  """
  return statistics.median(_invocations(Interpreter(Path(path).read_bytes()), runs, time.perf_counter))


def latencies_ms(contents: Sequence[bytes], rounds: int = 5) -> list[float]:
  """For each file's content the median over rounds, each of which runs all files in turn; one thread, XNNPACK.

  What slows the machine for a while then slows all of them alike. In a round a file runs for about 2 ms (at least 5
  times) and gives the median. The clock is that of the thread's CPU time: the latency on an otherwise idle core,
  whatever else runs.
  """
  clock = time.thread_time
  times: list[list[float]] = [[] for _ in contents]
  for _ in range(rounds):
    for content, mine in zip(contents, times, strict=True):
      interpreter = Interpreter(content)
      first = min(_invocations(interpreter, 2, clock))
      mine.append(statistics.median(_invocations(interpreter, int(np.clip(ROUND_MS / first, 5, 200)), clock)))
  return [statistics.median(mine) for mine in times]


def measure(needed: Iterable[Profile | Op], *, formats: Sequence[str] = ('float32', 'int8'),
            fractions: Sequence[float] = (.25, .5, 1.), rounds: int = 5) -> LatencyTable:
  """Times one-operator LiteRT files (batch 1, one thread, XNNPACK) on this machine, for `cost.latency`.

  An operator is measured with a ReLU in it, as it runs in a network. The time of an empty file is the overhead of an
  inference; it is taken off each operator's. Each file takes about 0.1 s, most of it conversion.

  Args:
    needed: profiles of one example, whose rows are measured at `fractions` of each channel count that can shrink, all
      combinations; or operators.
    formats: of the weights: float32, int8, int4. Activations are float32, int8, int8.
    fractions: of the full width, in (0, 1].
    rounds: of interleaved repeats.

  Raises:
    EffjaxError: an unknown format, fractions outside (0, 1], an operator without a one-operator file, nothing to do.

  >>> table = measure([Op('dense', (1, 1), 1, 1, 1, (1, 1), 4, 2)], formats=['int8'], rounds=1)
  >>> [(entry.format, entry.op.cout) for entry in table.entries], table.machine['threads']
  ([('int8', 2)], 1)
  """
  if strange := set(formats) - set(BITS):
    raise EffjaxError(f'measure: unknown formats {sorted(strange)}: wanted some of {list(BITS)}')
  if not fractions or not all(0 < f <= 1 for f in fractions):
    raise EffjaxError(f'measure: fractions of the full width must be in (0, 1], got {fractions}: try (.25, .5, 1.)')
  ops = list(dict.fromkeys(op for each in needed for op in _operators(each, fractions)))
  if not ops:
    raise EffjaxError('measure: no operator to measure: give profiles with convolutions or products, or operators')
  wanted = [(name, op) for op in ops for name in formats]
  empty = {name: content(name, None) for name in formats}
  times = latencies_ms([*empty.values(), *(content(*each) for each in wanted)], rounds)
  overhead = statistics.median(times[:len(empty)])
  made = (Entry(name, op, max(ms - overhead, 0.)) for (name, op), ms in zip(wanted, times[len(empty):], strict=True))
  return LatencyTable(tuple(made), overhead, machine())


def machine() -> dict:
  """What measured: CPU model, cores, threads used, versions of the packages, date."""
  packages = ('effjax', CONVERTER[0], RUNTIME[0], 'jax')
  return {'cpu': _cpu(), 'system': platform.platform(), 'cores': os.cpu_count(), 'threads': 1,
          'packages': {name: importlib.metadata.version(name) for name in packages},
          'date': datetime.date.today().isoformat()}


def content(name: str, op: Op | None) -> bytes:
  """A .tflite file with one operator and random weights; None: with a single ReLU of one number."""
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / 'op.tflite'
    if name == 'float32':
      float_tflite(*_function(op), path)
    else:
      tflite(_network(op, BITS[name]), path)
    return path.read_bytes()


def _cpu():
  """The CPU's model, from Linux if it says more than Python."""
  lines = Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').exists() else []
  names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
  return names[0] if names else platform.processor() or platform.machine()


def _invocations(interpreter, runs, clock):
  """Milliseconds of each run on zeros, the first few left out."""
  times = []
  interpreter.set(*(np.zeros(detail['shape'], detail['dtype']) for detail in interpreter.inputs))
  for _ in range(runs + 2):
    start = clock()
    interpreter.invoke()
    times.append(1e3 * (clock() - start))
  return times[2:]


def _operators(needed: Profile | Op, fractions) -> list[Op]:
  if isinstance(needed, Op):
    return [needed]
  found = []
  for row in needed.rows:
    op, axes = operator(row), ends(row)
    cins, couts = (_counts(full, channels, fractions) for full, channels in zip((op.cin, op.cout), axes, strict=True))
    found += [op._replace(cin=cin, cout=cout) for cin in cins for cout in couts]
  return found


def _counts(full, axes, fractions):
  """The full count last, if the channels can be removed with fractions of it before."""
  free = any((axis >= 0).any() for axis in axes)
  return sorted({max(1, round(full * f)) for f in fractions} | {full}) if free else [full]


def _channels(op):
  """Input channels, groups and output channels; a depthwise convolution or groups have whole multiples."""
  if op.kind == 'depthwise':
    inputs = max(1, round(op.cout / op.groups))
    return inputs, inputs, inputs * op.groups
  return op.cin * op.groups, op.groups, max(1, round(op.cout / op.groups)) * op.groups


def _geometry(op):
  """The input's shape, and padding SAME, of an operator with an image."""
  if len(op.size) != 2 or len(op.kernel) != 2:
    raise EffjaxError(f'measure: {op.kind} with kernel {op.kernel} and output {op.size} has no one-operator file: '
                      'wanted two spatial dimensions')
  shape = tuple(n * op.stride for n in op.size)
  reach = [op.dilation * (k - 1) + 1 for k in op.kernel]
  return shape, tuple(map(tuple, layouts.same_padding(shape, reach, (op.stride,) * 2)))


def _function(op: Op | None):
  """(fn, params, x) in float32."""
  if op is None:
    return lambda p, x: jax.nn.relu(x), {}, jnp.ones((1, 1))
  inputs, groups, outputs = _channels(op)
  if op.kind == 'dense':
    return lambda w, x: jax.nn.relu(x @ w), jnp.asarray(_random(inputs, outputs)), jnp.ones((1, inputs))
  (size, padding), strides = _geometry(op), (op.stride,) * 2
  fn = lambda w, x: jax.nn.relu(jax.lax.conv_general_dilated(
      x, w, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=groups,
      rhs_dilation=(op.dilation,) * 2))
  return fn, jnp.asarray(_random(*op.kernel, inputs // groups, outputs)), jnp.ones((1, *size, inputs))


def _network(op: Op | None, bits: int) -> Network:
  """One integer kernel."""
  tensor = lambda name, *shape: Tensor(name, (1, *shape), .05, 0)
  if op is None:
    return Network((tensor('input', 1),), (Node('clamp', (0,), tensor('output', 1), 'relu', {}),), (1,))
  inputs, groups, outputs = _channels(op)
  top = 2 ** (bits - 1) - 1
  scales = np.linspace(.01, .011, outputs, dtype=np.float32)
  weights = lambda *shape: dict(codes=np.clip(_random(*shape) * top, -top, top).astype(np.int8), bits=bits,
                                scales=scales, bias=np.ones(outputs, np.int32))
  if op.kind == 'dense':
    node = Node('dense', (0,), tensor('output', outputs), 'relu', {}, **weights(inputs, outputs))
    return Network((tensor('input', inputs),), (node,), (1,))
  size, padding = _geometry(op)
  settings = {'strides': (op.stride,) * 2, 'padding': padding, 'dilation': (op.dilation,) * 2, 'groups': groups}
  node = Node('depthwise' if groups == inputs else 'conv', (0,), tensor('output', *op.size, outputs), 'relu', settings,
              **weights(*op.kernel, inputs // groups, outputs))
  return Network((tensor('input', *size, inputs),), (node,), (1,))


def _random(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32) / np.float32(math.sqrt(shape[-2]))
