"""MLPerf Tiny's ResNet-8 on CIFAR-10, from float training to a verified integer file: `python train.py --data-dir DIR`.

A run that was stopped goes on from its newest checkpoint when the same command is given again.
"""
import argparse
import json
import os
import pathlib
import time

import flax.linen as nn
import jax
import numpy as np

from effjax import cost, data, export, graph, quantize
from effjax.cli.joint import test_images
from effjax.cli.phases import IDENTITY, Phase, Setting, accuracy, fixed_forward, flax_forward, run_phase
from effjax.data.source import joined, subset
from effjax.errors import EffjaxError
from effjax.export.micro import micro
from effjax.export.verify import codes_of, run
from effjax.train.memory import keep_memory

EVERY_STEPS = 200  # between checkpoints
WEIGHTS, TUNED, RANGES = 5e-3, 1e-3, 1e-4  # peak rates of Adam: float, quantization-aware; scales and zero points


class ResNet8(nn.Module):
  """Three stages of one residual block, of 16, 32 and 64 channels: 12,501,632 multiply-accumulates and 78,666
  parameters, BatchNorm's statistics counted. Convolutions have biases, 1x1 shortcuts no BatchNorm, as the benchmark's.

  Source: Banbury et al. 2021, "MLPerf Tiny Benchmark", arXiv:2106.07597; `image_classification/keras_model.py` of
  github.com/mlcommons/tiny.
  """
  classes: int = 10

  @nn.compact
  def __call__(self, x, train):
    norm = lambda x: nn.BatchNorm(use_running_average=not train, momentum=.9, epsilon=1e-3)(x)
    conv = lambda x, features, size, strides=1: nn.Conv(
        features, (size, size), strides, kernel_init=nn.initializers.he_normal())(x)
    x = nn.relu(norm(conv(x, 16, 3)))
    for features, strides in ((16, 1), (32, 2), (64, 2)):
      y = nn.relu(norm(conv(x, features, 3, strides)))
      y = norm(conv(y, features, 3))
      x = nn.relu(y + (x if strides == 1 else conv(x, features, 1, strides)))
    return nn.Dense(self.classes)(x.mean((1, 2)))


def setting(options, folder) -> Setting:
  """The data: nothing is decided on held-out images, so all but the test images train."""
  whole = data.load('cifar10', options.data_dir)
  parts = {'train': joined(whole.train.name, whole.train, whole.validation), 'test': whole.test}
  limit = lambda part: subset(part, part.name, np.arange(min(part.size, options.limit or part.size)))
  how = data.standard('cifar10', whole.train.shape)
  return Setting(folder, whole._replace(**{name: limit(part) for name, part in parts.items()}),
                 lambda keys, image: data.augment(keys, image, **how), options.batch_size, options.seed, 'jit',
                 jax.devices()[:1], EVERY_STEPS)


def trained(here, epochs):
  """`fn(params, x)` in inference mode, its parameters, and how many there are with the statistics."""
  net = ResNet8()
  variables = jax.jit(lambda key: net.lazy_init(key, here.spec(), False))(here.key('float'))
  params, stats = variables['params'], {'batch_stats': variables['batch_stats']}
  state = run_phase(here, Phase('float', steps(here, epochs), WEIGHTS), flax_forward(net), IDENTITY,
                    IDENTITY.init(here.key('slots'), params), stats)
  return lambda p, x: net.apply({'params': p, **state.model_state}, x, False), state.slots.theta, count(variables)


def tuned(here, fn, params, epochs, bits):
  """The network on the device's grids, and its trained slots: LSQ weights, LSQ+ activations."""
  aware = quantize.aware(fn, params, here.example(here.batch_size), bits=bits)
  slots = jax.jit(aware.reparam.init)(here.key('qat'), aware.params)
  phase = Phase('qat', steps(here, epochs), TUNED, RANGES)
  return aware, run_phase(here, phase, fixed_forward(aware.apply), aware.reparam, slots, ()).slots


def exported(here, aware, slots):
  """The integer network, written as `model.tflite` and `model.npz`, and the bytes of the former."""
  fixed = quantize.deployed(aware, slots)
  network = export.finalize(aware.fn, fixed.weights, fixed.facts, fixed.ranges, here.example())
  export.save(network, here.folder / 'model.npz')
  return network, export.tflite(network, here.folder / 'model.tflite')


def checked(here, network):
  """All test images: what `verify` finds, why TFLite Micro does not run ('' if it does), the accuracy in LiteRT."""
  path, images = here.folder / 'model.tflite', test_images(here.dataset)
  content, codes = path.read_bytes(), codes_of(network, (images,))
  why = refusal(content, [codes[0][:1]])
  report = export.verify(path, network, images, micro=not why)
  right = run(content, codes, xnnpack=True)[0].argmax(-1) == here.dataset.test.fetch(np.arange(len(images)))['label']
  return report, why, float(right.mean())


def refusal(content, codes):
  """What TFLite Micro has against the file; it has no 4-bit dense layer with a scale per channel, for one."""
  try:
    micro(content, codes)
  except EffjaxError as error:
    return str(error)
  return ''


def steps(here, epochs):
  return max(1, round(epochs * (here.dataset.train.size // here.batch_size)))


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def main(options):
  start, folder = time.time(), pathlib.Path(options.out)
  here = setting(options, folder)
  begin(options, folder)
  fn, params, parameters = trained(here, options.epochs)
  aware, slots = tuned(here, fn, params, options.qat_epochs, options.bits)
  network, size = exported(here, aware, slots)
  report, why, right = checked(here, network)
  weights, profile = aware.reparam.apply(*slots, None), graph.profile(fn, params, here.example())
  found = {
      'options': vars(options), 'parameters': parameters, 'macs': int(cost.macs(profile, {})), 'file_bytes': size,
      'weight_bytes': export.weight_bytes(network), 'peak_ram_bytes': int(cost.peak_ram(profile, {})),
      'accuracy': {'float': accuracy(here, lambda x: fn(params, x)),
                   'quantization-aware': accuracy(here, lambda x: aware.apply(weights, x)), 'file': right},
      'verify': report.to_dict(), 'no_micro': why, 'seconds': time.time() - start}
  (folder / 'result.json').write_text(json.dumps(found, indent=2) + '\n')
  print('\n'.join(lines(found, report)))
  return 0 if report.same else 1


def lines(found, report):
  """What was found, for a person."""
  yield (f'{found["parameters"]:,} parameters, {found["macs"]:,} MACs; model.tflite {found["file_bytes"]:,} bytes, '
         f'{found["weight_bytes"]:,} of weights; {found["seconds"]:.0f} s, load at the end {os.getloadavg()[0]:.1f}')
  yield 'test accuracy: ' + ', '.join(f'{name} {100 * value:.2f} %' for name, value in found['accuracy'].items())
  yield f'of {report.examples:,} test images, simulation against file:'
  runs = {'XNNPACK': report.xnnpack, 'builtin kernels': report.builtin}
  runs |= {'TFLite Micro': report.micro.agreement} if report.micro else {}
  for name, each in runs.items():
    yield (f'  {name}: {100 * each.codes_equal:.4f} % of the output codes equal, largest difference '
           f'{each.max_code_difference}, same class {100 * each.argmax_agreement:.2f} %')
  yield f'audit: {len(report.audit_problems)} problems; file and network the same: {report.same}'
  arena = (f'arena {report.micro.arena_bytes:,} bytes, {report.micro.activation_bytes:,} of them activations'
           if report.micro else f'not run ({found["no_micro"]})')
  yield f'TFLite Micro: {arena}; cost.peak_ram {found["peak_ram_bytes"]:,} bytes'


def begin(options, folder):
  """Makes the run's folder, or takes one that a run of the same options left."""
  kept, text = folder / 'options.json', json.dumps(vars(options), indent=2) + '\n'
  if (folder / 'result.json').exists() or (kept.exists() and kept.read_text() != text):
    raise EffjaxError(f'--out {options.out} holds a run that is finished or had other options: give another folder')
  folder.mkdir(parents=True, exist_ok=True)
  kept.write_text(text)


if __name__ == '__main__':
  keep_memory()
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data-dir', help='where TensorFlow Datasets keeps cifar10')
  parser.add_argument('--epochs', type=float, default=4, help='of float training; default %(default)s')
  parser.add_argument('--qat-epochs', type=float, default=1, help='of quantization-aware training')
  parser.add_argument('--batch-size', type=int, default=64)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--bits', type=int, choices=(4, 8), default=8, help='of all weights')
  parser.add_argument('--out', default='resnet8', metavar='FOLDER', help='for model.tflite, model.npz, result.json')
  parser.add_argument('--limit', type=int, metavar='N', help='train and test on N images only')
  try:
    parser.exit(main(parser.parse_args()))
  except EffjaxError as error:
    parser.exit(2, f'{error}\n')
