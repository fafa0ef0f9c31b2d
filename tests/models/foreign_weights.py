"""Random weights of networks of torchvision, timm and Keras, and the logits that these give for random images.

`python foreign_weights.py SOURCE FOLDER NAME:SIZE ...`, run with a Python that has the libraries (BUILD.md), writes for
each name its state for ten classes, `NAME.safetensors` (of Keras `NAME.npz`), the shapes therein, `NAME.json`, and
`NAME.io.npz` with `images` and `logits`. `foreign_weights.json` beside this file holds two of these tables of shapes.
"""
import json
import os
import pathlib
import sys
import types

import numpy as np

CLASSES, BATCH = 10, 2


def main(source, folder, *names):
  """Writes the files of every NAME:SIZE."""
  folder, write = pathlib.Path(folder), of_keras if source == 'keras' else of_torch
  for i, (name, size) in enumerate(name.split(':') for name in names):
    rng = np.random.default_rng(i)
    images = rng.normal(size=(BATCH, int(size), int(size), 3)).astype(np.float32)
    shapes, logits = write(source, name, images, folder, rng)
    (folder / f'{name}.json').write_text(json.dumps(shapes))
    np.savez(folder / f'{name}.io.npz', images=images, logits=logits)


def drawn(rng, shape, fan_in, positive):
  """Gains and variances around 1, all else small and not zero.

  Kernels give a little less than the 2 / fan_in that keeps variances under ReLU: with that some draws of a MobileNetV3
  multiply rounding errors so much that PyTorch's float32 logits are 8e-4 from its float64 ones.
  """
  if positive:
    return rng.uniform(.8, 1.25, shape).astype(np.float32)
  return (rng.normal(size=shape) * ((1.5 / fan_in)**.5 if fan_in else .1)).astype(np.float32)


def of_torch(source, name, images, folder, rng):
  """With torchvision or timm."""
  import safetensors.torch
  import torch
  model = creator(source, torch)(name).eval()
  state = {}
  for key, value in model.state_dict().items():
    fan_in, positive = value.numel() // max(1, len(value)) if value.ndim > 1 else 0, key.endswith('running_var')
    gain = value.ndim == 1 and key.endswith('weight')
    state[key] = torch.from_numpy(drawn(rng, value.shape, fan_in, positive or gain)) if value.ndim else value
  model.load_state_dict(state)
  safetensors.torch.save_file(state, folder / f'{name}.safetensors')
  with torch.no_grad():
    logits = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
  return {key: list(value.shape) for key, value in state.items()}, logits


def creator(source, torch):
  """The function that makes a network of a name."""
  try:
    import torchvision
  except (ImportError, RuntimeError):  # its compiled operators are for another torch; classification needs none of them
    global library
    library = torch.library.Library('torchvision', 'DEF')
    library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    sys.modules['torchvision._meta_registrations'] = types.ModuleType('torchvision._meta_registrations')
    import torchvision
  if source == 'torchvision':
    return lambda name: torchvision.models.get_model(name, weights=None, num_classes=CLASSES)
  import timm
  return lambda name: timm.create_model(name, pretrained=False, num_classes=CLASSES)


def of_keras(source, name, images, folder, rng):
  """With keras.applications."""
  os.environ.setdefault('KERAS_BACKEND', 'jax')
  import keras
  options = {'include_preprocessing': False} if 'V3' in name else {}
  model = getattr(keras.applications, name)(weights=None, classes=CLASSES, classifier_activation=None,
                                            input_shape=images.shape[1:], **options)
  for weight in model.weights:
    shape = tuple(weight.shape)
    depthwise = len(shape) == 4 and shape[-1] == 1
    fan_in = np.prod(shape[:2] if depthwise else shape[:-1]) if len(shape) > 1 else 0
    if not weight.path.startswith('normalization'):
      weight.assign(drawn(rng, shape, fan_in, weight.path.endswith(('gamma', 'variance'))))
  np.savez(folder / f'{name}.npz', **{weight.path: np.asarray(weight) for weight in model.weights})
  logits = np.asarray(model(preprocessed(name, images), training=False))
  return {weight.path: list(weight.shape) for weight in model.weights}, logits


def preprocessed(name, images):
  """Images of which Keras's network makes `images`: EfficientNet begins with a division by 255."""
  return images * 255 if name.startswith('EfficientNet') else images


if __name__ == '__main__':
  main(*sys.argv[1:])
