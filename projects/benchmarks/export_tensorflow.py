"""TensorFlow's side of `export.py`, run by it in an environment that has TensorFlow and not effjax.

One conversion of `tf.keras.applications.MobileNetV2` with the weights of our network; prints a line of JSON.
"""
import json
import sys
import time
from pathlib import Path

import numpy as np


def measured(convert):
  """Seconds of `convert()`, and of CPU; the process's resident megabytes before it, and at most until its end.

  Linux tells these. `resource.getrusage` would count what the parent process held when it started this one.
  """
  before, start, cpu = megabytes('VmRSS'), time.perf_counter(), time.process_time()
  convert()
  seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
  return {'seconds': seconds, 'cpu_seconds': cpu, 'before_mb': before, 'peak_mb': megabytes('VmHWM')}


def megabytes(field):
  """A size in this process's status, which is in units of 1024 bytes."""
  lines = Path('/proc/self/status').read_text().splitlines()
  return next(int(line.split()[1]) for line in lines if line.startswith(field + ':')) * 1024 / 1e6


def converter(tf, name, model, images):
  """TensorFlow's converter, set to a format. What is calibrated, is so on the images."""
  made = tf.lite.TFLiteConverter.from_keras_model(model)
  if name == 'float32':
    return made
  made.optimizations = [tf.lite.Optimize.DEFAULT]
  if name == 'float16':
    made.target_spec.supported_types = [tf.float16]
  if name in ('int8', 'int16x8'):
    ops, ends = tf.lite.OpsSet, tf.int8 if name == 'int8' else tf.int16
    made.target_spec.supported_ops = [ops.TFLITE_BUILTINS_INT8 if name == 'int8' else
                                      ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]
    made.inference_input_type = made.inference_output_type = ends
    made.representative_dataset = lambda: ([image[None]] for image in images)
  return made


def main():
  import tensorflow as tf  # not there where `export.py` reads `measured`
  name, source, path = sys.argv[1:]
  with np.load(source) as saved:
    images, *weights = saved.values()
  model = tf.keras.applications.MobileNetV2(images.shape[1:], weights=None, classifier_activation=None)
  model.set_weights(weights)
  tf.lite.TFLiteConverter  # noqa: B018 (imported at its first use)
  convert = lambda: Path(path).write_bytes(converter(tf, name, model, images).convert())
  print('\n' + json.dumps(measured(convert) | {'version': tf.__version__}))


if __name__ == '__main__':
  main()
