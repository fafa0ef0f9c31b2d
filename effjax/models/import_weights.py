"""Weights of torchvision, timm and Keras, as variables of our networks."""
import difflib
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from effjax import tree
from effjax.errors import EffjaxError
from effjax.models.import_layers import Names, import_layers
from effjax.models.import_names import NAMES
from effjax.models.network import Network
from effjax.models.registry import NETWORKS, create, shapes
from effjax.tree import PyTree

TORCH = {'kernel': '.weight', 'bias': '.bias', 'scale': '.weight', 'offset': '.bias',
         'mean': '.running_mean', 'var': '.running_var'}
KERAS = {'kernel': '/kernel', 'bias': '/bias', 'scale': '/gamma', 'offset': '/beta',
         'mean': '/moving_mean', 'var': '/moving_variance'}
ENDINGS = {'keras': KERAS, 'timm': TORCH, 'torchvision': TORCH}
NO_WEIGHTS = re.compile(r'.*num_batches_tracked|normalization/\w+')  # the latter: what Keras does to images


def import_weights(name: str, state: Mapping[str, Any] | str | os.PathLike, source: str,
                   **options: Any) -> tuple[Network, PyTree]:
  """The network `name` as `source` has it, and its variables from `state`: `net.apply(variables, x, False)`.

  The network is built with what makes it the source's: padding, epsilon, the place of strides; `num_classes` is that of
  the weights. Images must be what the source's first convolution gets: what Keras's networks do to them before that is
  not part of ours. Arrays become float32; kernels OIHW are transposed to HWIO, dense layers to [cin, features], also
  one that flattens [c, h, w]; biases of convolutions before BatchNorm (Keras's ResNet) go into its mean.

  Args:
    name: as for `create`, of one of the families of `effjax/models/import_names.py`.
    state: arrays by name: `module.state_dict()`, or `{w.path: w.numpy() for w in model.weights}` of Keras 3; or the
      path of a file of them, `.safetensors` (pip install 'effjax[weights]') or `.npz`.
    source: 'torchvision', 'timm' or 'keras'.
    options: fields of the network that differ from these, e.g. `padding='SAME', epsilon=1e-3` for timm's `tf_...`,
      `epsilon=1e-3` for torchvision's EfficientNet-B5 to B7, or `width`.

  Raises:
    EffjaxError: an unknown network or source; a file that cannot be read; an array that is missing, left over, or of
      a shape that does not fit.

  >>> import_weights('resnet18', {}, 'torchvision')
  Traceback (most recent call last):
  effjax.errors.EffjaxError: import_weights: there is no array 'fc.bias' for 'classifier/bias', the nearest are []: give
    the weights of that network
  """
  names, ending = _names(name, source), ENDINGS[source]
  state = _as_keras_3(_read(state)) if source == 'keras' else _read(state)
  state = {key: value for key, value in state.items() if not NO_WEIGHTS.fullmatch(key)}
  conv, _ = import_layers(['classifier'], names)['classifier']
  classes = len(_get(state, conv + ending['bias'], 'classifier/bias'))
  net = create(name, **{**names.options, 'num_classes': classes, **options})
  wanted, _ = shapes(net, NETWORKS[name].size)
  rows = list(_rows(tree.leaves(wanted), names, ending))
  arrays = [_array(state, row, source, names) for row in rows]
  if left := set(state) - {key for row in rows for key in (row.theirs, row.bias)}:
    raise EffjaxError(f'import_weights: {len(left)} arrays have no place in {name!r} of {source}, such as '
                      f'{sorted(left)[:3]}: give the weights of that network, or take them out')
  return net, jax.tree.unflatten(jax.tree.structure(wanted), arrays)


class _Row(NamedTuple):
  """A leaf of ours, its layer and shape, the name of theirs, and of a convolution's bias that goes into this mean."""
  path: str
  layer: str
  shape: tuple[int, ...]
  theirs: str
  bias: str


def _names(name, source) -> Names:
  key = name if name in NAMES else type(create(name)).__name__
  if key not in NAMES:
    raise EffjaxError(f'import_weights: no names of layers are known for {name!r}: known are those of '
                      f'{sorted(NAMES)}')
  if source not in NAMES[key]:
    raise EffjaxError(f'import_weights: {name!r} of source {source!r} is not known: choose one of {sorted(NAMES[key])}')
  return NAMES[key][source]


def _read(state):
  if isinstance(state, Mapping):
    return state
  try:
    if os.fspath(state).endswith('.npz'):
      with np.load(state) as file:
        return dict(file)
    import safetensors.numpy
    return safetensors.numpy.load_file(state)
  except ImportError as error:
    raise EffjaxError(f"import_weights: {state} needs safetensors: pip install 'effjax[weights]'") from error
  except Exception as error:  # each reader has classes of its own
    raise EffjaxError(f'import_weights: cannot read {state} as .npz or .safetensors: {error}') from error


def _rows(leaves, names, ending) -> Iterator[_Row]:
  split = {path: re.fullmatch(r'\w+?/(.+?)(?:/(?:conv|bn))?/(\w+)', path).groups() for path in leaves}
  theirs = import_layers(dict.fromkeys(layer for layer, _ in split.values()), names)
  for path, (layer, leaf) in split.items():
    conv, norm = theirs[layer]
    normed = path.rpartition('/')[0].replace('batch_stats', 'params') + '/scale' in leaves
    key = (norm if normed else conv) + ending['offset' if normed and leaf == 'bias' else leaf]
    folds = conv and leaf == 'mean' and f'params/{layer}/conv/bias' not in leaves
    yield _Row(path, layer, leaves[path].shape, key, conv + ending['bias'] if folds else '')


def _array(state, row, source, names):
  """As ours: the layout, float32, and a mean less the bias that is added before it."""
  array = _get(state, row.theirs, row.path)
  if source != 'keras' and array.ndim in (2, 4):
    array = array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)
    if row.layer == names.flattened[0] and array.ndim == 2 and row.path.endswith('kernel'):
      array = _from_chw(array, names.flattened[1])
  if not _alike(array.shape, row.shape):
    raise EffjaxError(f'import_weights: {row.theirs!r} has shape {array.shape} in our layout, {row.path!r} wants '
                      f'{row.shape}: give the weights of that network, or its width')
  array = array.reshape(row.shape)
  return jnp.asarray(array - _get(state, row.bias, row.path) if row.bias in state else array)


def _get(state, key, path):
  if key not in state:
    near = difflib.get_close_matches(key, state, n=3, cutoff=0.)
    raise EffjaxError(f'import_weights: there is no array {key!r} for {path!r}, the nearest are {near}: give the '
                      'weights of that network')
  return np.asarray(state[key], np.float32)


def _from_chw(array, size):
  """[c h w, features] as [h w c, features], of which h w is `size`."""
  return array.reshape(-1, size, array.shape[-1]).swapaxes(0, 1).reshape(array.shape)


def _alike(shape, wanted):
  """The same; a dense layer and a 1x1 convolution, or one that sees all that is left; a depthwise kernel of Keras."""
  if math.prod(shape) != math.prod(wanted):
    return False
  depthwise = len(shape) == len(wanted) == 4 and shape[:2] == wanted[:2] and wanted[2] == 1
  return shape == wanted or depthwise or len(shape) != len(wanted) and shape[-1:] == wanted[-1:]


def _as_keras_3(state):
  """Names as a fresh Keras 3 gives them: layers without a name of their own are numbered, and there from the first."""
  state = {re.sub(r'/(depthwise|pointwise)_kernel$', r'/\1/kernel', key.removesuffix(':0')): value
           for key, value in state.items()}
  for word in ('conv2d', 'batch_normalization'):
    layers = {key.split('/')[0] for key in state if re.match(rf'{word}(_\d+)?/', key)}
    in_order = sorted(layers, key=lambda layer: (len(layer), layer))
    fresh = {layer: f'{word}_{i}' if i else word for i, layer in enumerate(in_order)}
    state = {re.sub('^[^/]+', lambda found, fresh=fresh: fresh.get(found[0], found[0]), key): value
             for key, value in state.items()}
  return state
