"""MobileNetV2 1.0 as .tflite in all formats, by effjax and by TensorFlow: `python export.py [--tensorflow PYTHON]`.

Conversion time, peak memory of the process that converts, bytes of the file, latency (LiteRT, XNNPACK, one thread,
batch 1). Each conversion runs in a process of its own; its seconds leave out imports and building the network. The
files of both converters then run in turn in one process. Linux only, because of the memory. `PYTHON` has TensorFlow:

    python3 -m venv tfenv && tfenv/bin/pip install tensorflow-cpu==2.21.0

and is then `tfenv/bin/python`. Without it only effjax is measured.

Both networks have the same weights, drawn at random, BatchNorm's statistics too, and compute the same: `error` is how
far a file's outputs for one image are from those of the first file, effjax's float32. Where Keras pads with
ZeroPadding2D before a convolution of stride 2, ours has SAME: for sizes that are even at each stride that is the same
padding, so parameters and MACs are equal, and TensorFlow's converter removes the PAD.

Ours starts from quantizers as they are before the first step of training, since how far they are trained does not
matter to the file's size or speed: what is timed is `finalize` and `tflite`, or `float_tflite`. TensorFlow's full int8
and 16x8 include the calibration, its way to ranges. Formats with int4 keep the depthwise convolutions in int8, because
LiteRT has no dynamic int4 one. Where `float_tflite` runs the converter in a process of its own (weight-only, dynamic),
that one's memory is not in the peak.
"""
import argparse
import itertools
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from export_tensorflow import measured
from rich import box
from rich.console import Console
from rich.table import Table

from effjax import cost, export, graph, quantize, tree
from effjax.errors import EffjaxError
from effjax.export import litert
from effjax.export.latency import machine

BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
IMAGES, RUNS = 8, 5  # for the ranges; inferences of a file in a round, of which the median counts


class Format(NamedTuple):
  """weights: as `float_tflite` names them, None for the integer file. bits: of weights and of activations."""
  weights: str | None
  bits: int = 8
  activations: int = 8
  tensorflow: bool = False


FORMATS = {
    'float32': Format('float32', tensorflow=True), 'float16': Format('float16', tensorflow=True),
    'weight_only_int8': Format('weight_only'), 'weight_only_int4': Format('weight_only', 4),
    'dynamic_int8': Format('dynamic', tensorflow=True), 'dynamic_int4': Format('dynamic', 4),
    'int8': Format(None, tensorflow=True), 'int8_int4': Format(None, 4), 'int16x8': Format(None, 8, 16, True)}


# --- the network --------------------------------------------------------------------------------------------------

class MobileNetV2(nn.Module):
  """Sandler et al., CVPR 2018, arXiv:1801.04381: images to logits. Layers are numbered as Keras orders them."""

  @nn.compact
  def __call__(self, x):
    count = itertools.count()

    def unit(x, features, kernel=1, strides=1, groups=1):
      number = f'{next(count):02}'
      x = nn.Conv(features, (kernel,) * 2, strides, use_bias=False, feature_group_count=groups,
                  name=number + '_conv')(x)
      return nn.BatchNorm(use_running_average=True, epsilon=1e-3, name=number + '_norm')(x)

    x = nn.relu6(unit(x, 32, 3, 2))
    for expand, features, depth, first in BLOCKS:
      for block in range(depth):
        y = nn.relu6(unit(x, expand * x.shape[-1])) if expand > 1 else x
        y = nn.relu6(unit(y, y.shape[-1], 3, 1 if block else first, y.shape[-1]))
        x = x + unit(y, features) if block else unit(y, features)
    return nn.Dense(1000, name='head')(nn.relu6(unit(x, 1280)).mean((1, 2)))


def drawn(size, seed=0):
  """(params, statistics) at random, BatchNorm neither the identity nor far from it; images."""
  rng = np.random.default_rng(seed)
  images = rng.uniform(-1, 1, (IMAGES, size, size, 3)).astype(np.float32)

  def leaf(path, spec):
    if path[-1].key == 'kernel':
      value = rng.normal(0, np.sqrt(2 / np.prod(spec.shape[:-1])), spec.shape)
    else:
      value = rng.uniform(.5, 1., spec.shape) if path[-1].key in ('scale', 'var') else rng.normal(0, .1, spec.shape)
    return value.astype(np.float32)

  specs = jax.eval_shape(lambda: MobileNetV2().init(jax.random.key(0), jnp.zeros((1, size, size, 3))))
  made = jax.tree_util.tree_map_with_path(leaf, specs)
  return made['params'], made['batch_stats'], images


def function(stats):
  """`fn(params, images)` in inference mode."""
  return lambda p, x: MobileNetV2().apply({'params': p, 'batch_stats': stats}, x)


def for_keras(params, stats):
  """All weights in Keras' order and layout."""
  for name in sorted(set(params) - {'head'}):
    if name.endswith('conv'):
      w = params[name]['kernel']
      yield w.swapaxes(2, 3) if depthwise(w) else w
    else:
      yield from (params[name]['scale'], params[name]['bias'], stats[name]['mean'], stats[name]['var'])
  yield from (params['head']['kernel'], params['head']['bias'])


def depthwise(w):
  """Of the kernels of this network."""
  return w.ndim == 4 and w.shape[2] == 1


def deployed(fn, params, images, bits, activations):
  """What training with quantizers would hand to export, before its first step."""
  bits = {path: bits for path, w in tree.leaves(params).items() if path.endswith('kernel') and not depthwise(w)}
  aware = quantize.aware(fn, params, images, bits=bits, quantizer=quantize.lsq_plus(activations))
  ready = quantize.deployed(aware, jax.jit(aware.reparam.init)(jax.random.key(0), aware.params))
  return jax.tree.map(np.asarray, ready.weights), ready.facts, ready.ranges


# --- conversions, each in a process of its own --------------------------------------------------------------------

def source(folder, name):
  """Where a format's network waits for its conversion."""
  return Path(folder) / f'{FORMATS[name].bits}_{FORMATS[name].activations}.pickle'


def prepare(folder, names, size):
  """Writes the networks, for Keras too. (problems by format, parameters, MACs)."""
  params, stats, images = drawn(size)
  weights, fn, problems = [images, *for_keras(params, stats)], function(stats), {}
  np.savez(Path(folder) / 'keras.npz', *weights)
  for name in names:
    path = source(folder, name)
    try:
      if not path.exists():
        made = deployed(fn, params, images, FORMATS[name].bits, FORMATS[name].activations)
        path.write_bytes(pickle.dumps((params, stats, images[:1], made)))
    except EffjaxError as error:
      problems[name, 'effjax'] = str(error)
  profile = graph.profile(fn, params, images[:1])
  return problems, sum(w.size for w in weights[1:]), float(cost.macs(profile, {}))


def convert(name, folder, path):
  """Our conversion in this process; prints a line of JSON."""
  params, stats, x, (weights, facts, ranges) = pickle.loads(source(folder, name).read_bytes())
  export.require()
  for module in ('passmanager', '_mlir_libs.converter_api_ext'):  # imports are not timed
    litert.load(litert.CONVERTER, f'litert_converter.mlir.{module}')
  fn, kind = function(stats), FORMATS[name].weights
  if kind is None:
    run = lambda: export.tflite(export.finalize(fn, weights, facts, ranges, x), path)
  elif kind in ('float32', 'float16'):
    run = lambda: export.float_tflite(fn, params, x, path, weights=kind)
  else:
    run = lambda: export.float_tflite(fn, weights, x, path, weights=kind, facts=facts)
  print('\n' + json.dumps(measured(run)))


def child(python, script, *args):
  """What a process printed on its last line, as JSON; or the last line of its errors."""
  env = {'TF_CPP_MIN_LOG_LEVEL': '3', **os.environ}
  done = subprocess.run([python, Path(__file__).with_name(script), *args], capture_output=True, text=True, env=env)
  if done.returncode:
    return (done.stderr.strip().splitlines() or [f'ended with {done.returncode}'])[-1]
  return json.loads(done.stdout.splitlines()[-1])


def conversions(folder, names, python, repeats, problems):
  """Rows by (format, converter), each with a list for every figure; adds to the problems."""
  rows = {}
  for _ in range(repeats):
    for name in names:
      for converter in ('effjax', *(('tensorflow',) if python and FORMATS[name].tensorflow else ())):
        key, path = (name, converter), str(Path(folder) / f'{name}_{converter}.tflite')
        if key in problems:
          continue
        ours = (sys.executable, 'export.py', '--convert', name, folder, path)
        theirs = (python, 'export_tensorflow.py', name, str(Path(folder) / 'keras.npz'), path)
        found = child(*(ours if converter == 'effjax' else theirs))
        if isinstance(found, str):
          problems[key] = found
          continue
        row = rows.setdefault(key, {'content': Path(path).read_bytes()})
        for what, value in found.items():
          row.setdefault(what, []).append(value)
  return rows


# --- running the files --------------------------------------------------------------------------------------------

def outputs(content, image):
  """The file's outputs for a real image, as real numbers. Formats with integer inputs and outputs have one scale."""
  interpreter = litert.Interpreter(content)
  (scale, zero), (out_scale, out_zero) = (d[0]['quantization'] for d in (interpreter.inputs, interpreter.outputs))
  dtype = interpreter.inputs[0]['dtype']
  if scale:
    limits = np.iinfo(dtype)
    image = np.clip(np.rint(image / scale) + zero, limits.min, limits.max)
  found = interpreter.run(image.astype(dtype))[0]
  return (found.astype(np.float64) - out_zero) * out_scale if out_scale else found.astype(np.float64)


def check(rows, image, problems):
  """Adds to each row how far its outputs are from the first file's, relative; takes out files that do not run."""
  want = None
  for key, row in list(rows.items()):
    try:
      got = outputs(row['content'], image)
    except EffjaxError as error:
      problems[key] = str(error)
      del rows[key]
      continue
    want = got if want is None else want
    row['error'] = float(np.linalg.norm(got - want) / np.linalg.norm(want))


def run_in_turn(rows, rounds, clock=time.thread_time):
  """Adds to each row its milliseconds in each round. A round runs all files, the converters of a format side by side.

  Every round makes the interpreters anew, so that where one of them lies in memory does not decide, and turns the
  order. The clock is the thread's CPU time: the latency on an otherwise idle core.
  """
  for number in range(rounds):
    for row in list(rows.values())[::-1 if number % 2 else 1]:
      interpreter, times = litert.Interpreter(row['content']), []
      random = np.random.default_rng(number).uniform(-1, 1, interpreter.inputs[0]['shape'])
      dtype = interpreter.inputs[0]['dtype']
      interpreter.set((random * (1 if dtype == np.float32 else np.iinfo(dtype).max)).astype(dtype))
      for _ in range(2 + RUNS):
        start = clock()
        interpreter.invoke()
        times.append(1e3 * (clock() - start))
      row.setdefault('latency_ms', []).append(statistics.median(times[2:]))


# --- printing -----------------------------------------------------------------------------------------------------

def middle(values, digits):
  """Median and the ends of the middle half."""
  low, median, high = statistics.quantiles(values, n=4, method='inclusive') if len(values) > 1 else values * 3
  return f'{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})'


def table(rows):
  """A line for each file."""
  made = wide('conversion s', 'CPU s', 'peak MB', 'before', 'bytes', 'latency ms', 'error',
              title='each file: median (quartiles)', first=('format', 'converter'))
  for (name, converter), row in rows.items():
    single = (f'{statistics.median(row[what]):.{digits}f}' for what, digits in
              (('cpu_seconds', 2), ('peak_mb', 0), ('before_mb', 0)))
    made.add_row(name, converter, middle(row['seconds'], 2), *single, f'{len(row["content"]):,}',
                 middle(row['latency_ms'], 3), f'{row["error"]:.1e}')
  return made


def wide(*columns, title, first):
  """A table of numbers, after columns of names."""
  made = Table(title=title, box=box.SIMPLE)
  for name in (*first, *columns):
    made.add_column(name, no_wrap=True, justify='left' if name in first else 'right')
  return made


def ratios(rows):
  """By format what ours takes of TensorFlow's: latency in each round, medians of the rest."""
  found = {}
  for name in FORMATS:
    ours, theirs = rows.get((name, 'effjax')), rows.get((name, 'tensorflow'))
    if ours and theirs:
      found[name] = {'latency': [a / b for a, b in zip(ours['latency_ms'], theirs['latency_ms'], strict=True)],
                     'bytes': len(ours['content']) / len(theirs['content'])}
      for what in ('seconds', 'cpu_seconds', 'peak_mb'):
        found[name][what] = statistics.median(ours[what]) / statistics.median(theirs[what])
  return found


def ratio_table(found):
  """A line for each format that both convert."""
  made = wide('latency', 'bytes', 'conversion', 'CPU', 'peak memory', title='effjax as a multiple of TensorFlow',
              first=('format',))
  for name, each in found.items():
    single = (f'{each[what]:.3f}' for what in ('bytes', 'seconds', 'cpu_seconds', 'peak_mb'))
    made.add_row(name, middle(each['latency'], 3), *single)
  return made


def measure(args):
  """Converts and runs: what the network is, rows by (format, converter), problems by the same."""
  names = [name for name in FORMATS if name in args.formats]
  with tempfile.TemporaryDirectory() as folder:
    problems, parameters, macs = prepare(folder, names, args.size)
    rows = conversions(folder, names, args.tensorflow, args.conversions, problems)
  image = np.random.default_rng(1).uniform(-1, 1, (1, args.size, args.size, 3)).astype(np.float32)
  check(rows, image, problems)
  run_in_turn(rows, args.rounds)
  versions = {version for row in rows.values() for version in row.pop('version', ())}
  what = {'size': args.size, 'parameters': parameters, 'macs': macs, 'tensorflow': ' '.join(versions) or None,
          'machine': machine() | {'load': os.getloadavg()[0]}}
  return what, rows, problems


def show(what, rows, problems, console):
  """Everything as text."""
  console.print(f'MobileNetV2 1.0, {what["size"]} pixels, {what["parameters"]:,} parameters, {what["macs"]:,.0f} MACs; '
                f'TensorFlow {what["tensorflow"] or "not given"}', highlight=False)
  console.print(table(rows))
  if found := ratios(rows):
    console.print(ratio_table(found))
  for (name, converter), problem in problems.items():
    console.print(f'{name}, {converter}: {problem}', markup=False, highlight=False)
  console.print(', '.join(f'{name} {value}' for name, value in what['machine'].items()), markup=False, highlight=False)


def plain(what, rows, problems):
  """Everything as what JSON can hold."""
  names = ('format', 'converter')
  files = [dict(zip(names, key)) | {'bytes': len(row['content'])} | {k: v for k, v in row.items() if k != 'content'}
           for key, row in rows.items()]
  return what | {'files': files, 'ratios': ratios(rows),
                 'problems': [dict(zip(names, key)) | {'problem': text} for key, text in problems.items()]}


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--tensorflow', metavar='PYTHON', help='a python that has tensorflow-cpu')
  parser.add_argument('--formats', nargs='+', choices=FORMATS, default=list(FORMATS), metavar='FORMAT',
                      help=f'some of {", ".join(FORMATS)}')
  parser.add_argument('--size', type=int, default=224, help='pixels of the side of an image, even in each layer')
  parser.add_argument('--rounds', type=int, default=30, help='in each of which all files run')
  parser.add_argument('--conversions', type=int, default=3, help='of each file')
  parser.add_argument('--json', type=Path, metavar='FILE', help='writes all that was measured')
  parser.add_argument('--convert', nargs=3, help=argparse.SUPPRESS)  # this script's own child process
  args = parser.parse_args()
  if args.convert:
    return convert(*args.convert)
  found = measure(args)
  show(*found, Console(width=None if sys.stdout.isatty() else 140))
  if args.json:
    args.json.write_text(json.dumps(plain(*found), indent=1))


if __name__ == '__main__':
  main()
