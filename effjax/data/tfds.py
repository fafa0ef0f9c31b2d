"""Image classification sets of TensorFlow Datasets, read without TensorFlow."""
import difflib
import os

import numpy as np

from effjax.data.source import Batch, Dataset, Source, permutation, subset
from effjax.errors import EffjaxError

SPLIT_SEED = 0
HELD_OUT = 10             # one in so many training examples becomes validation where the set has none
REMEMBERED_BYTES = 2**30  # decoded images are kept in memory up to this size


def tfds(name: str, data_dir: str | os.PathLike | None = None) -> Dataset:
  """The parts `train`, `validation` and `test` of a set with an `image` of one size and a class `label`.

  A set without `test` is tested on its `validation`; one without `validation` to spare gives a fixed tenth of `train`.
  Images are decoded on demand and kept (up to 1 GiB a split), so the second epoch costs nothing.

  Args:
    name: as TensorFlow Datasets knows it, e.g. `cifar10` or `cifar10:3.0.2`, or that of a prepared folder.
    data_dir: where prepared sets lie, and where a download is prepared; None is TensorFlow Datasets' own folder.

  Raises:
    EffjaxError: the set is unknown; neither prepared (in a format with random access) nor to be downloaded; or not
      one of images of one size with a label each.
  """
  builder = _builder(name, data_dir)
  num_classes, shape = _features(name, builder.info.features)
  if not builder.info.splits:
    _prepare(name, builder)
  source = lambda split: _source(name, builder, split, num_classes, shape)
  held_out, test = _parts(name, set(builder.info.splits))
  train = source('train')
  if held_out:
    return Dataset(train, source(held_out), source(test))
  order, count = permutation(train.size, SPLIT_SEED), train.size // HELD_OUT
  return Dataset(subset(train, train.name, np.sort(order[count:])),
                 subset(train, f'{name}/validation', np.sort(order[:count])), source(test))


def _builder(name, data_dir):
  import tensorflow_datasets
  try:
    return tensorflow_datasets.builder(name, data_dir=data_dir, try_gcs=False)
  except tensorflow_datasets.core.registered.DatasetNotFoundError as error:
    near = difflib.get_close_matches(name, tensorflow_datasets.list_builders(with_community_datasets=False), 5, 0.)
    raise EffjaxError(f'data set {name!r} is unknown: neither digits, nor a name of TensorFlow Datasets (nearest are '
                      f'{near}), nor a prepared folder in {_place(data_dir)}: correct the name or data_dir') from error
  except (AssertionError, ImportError, OSError, ValueError) as error:
    raise EffjaxError(f'data set {name!r} in {_place(data_dir)}: {_first_line(error)}: correct the name, its version '
                      'or data_dir') from error


def _features(name, features):
  """The number of classes and the images' shape, of a set that has both."""
  import tensorflow_datasets
  found = dict(features.items()) if hasattr(features, 'items') else {}
  image, label = found.get('image'), found.get('label')
  if not (isinstance(image, tensorflow_datasets.features.Image) and None not in image.shape
          and image.np_dtype == np.uint8 and isinstance(label, tensorflow_datasets.features.ClassLabel)):
    shown = ', '.join(f'{key}: {type(part).__name__}{part.shape}' for key, part in found.items())
    raise EffjaxError(f'data set {name!r} has the features {{{shown}}}, wanted image: uint8 of one fixed shape and '
                      'label: ClassLabel: choose a set for image classification')
  return label.num_classes, tuple(image.shape)


def _prepare(name, builder):
  """Downloads and prepares; whatever stops it, and builders raise anything, the set is not there."""
  try:
    _reach(builder.url_infos or {})
    builder.download_and_prepare(file_format='array_record')
  except Exception as error:
    raise EffjaxError(
        f'data set {name!r} is not prepared in {builder.data_dir} and cannot be made there ({type(error).__name__}: '
        f'{_first_line(error)}): pass the folder that holds a prepared copy as data_dir, or prepare one where there '
        f'are a network and TensorFlow with `tfds build {name} --file_format=array_record`') from error


def _reach(urls):
  """Fails within seconds where there is no network; TensorFlow Datasets itself tries for minutes."""
  import requests
  for url in [url for url in urls if url.startswith('http')][:1]:
    try:
      requests.head(url, timeout=5)
    except requests.RequestException as error:
      raise ConnectionError(f'no connection to {url}') from error


def _parts(name, splits):
  """The splits for validation (None: to be held out of train) and for test."""
  test = next((split for split in ('test', 'validation') if split in splits), None)
  if 'train' not in splits or test is None:
    raise EffjaxError(f'data set {name!r} has the splits {sorted(splits)}, wanted train and one of test, validation: '
                      'choose another set')
  return ('validation' if 'validation' in splits and test != 'validation' else None), test


def _source(name, builder, split, num_classes, shape) -> Source:
  try:
    records = builder.as_data_source(split)
  except NotImplementedError as error:
    raise EffjaxError(f'data set {name!r} in {builder.data_dir} is stored as {builder.info.file_format.value}, wanted '
                      'a format with random access: prepare it again with --file_format=array_record') from error
  fetch = lambda indices: _read(records, indices)
  keep = len(records) * int(np.prod(shape)) <= REMEMBERED_BYTES
  return Source(f'{name}/{split}', num_classes, shape, len(records),
                _remember(fetch, len(records), shape) if keep else fetch)


def _read(records, indices) -> Batch:
  read = records.__getitems__(indices.tolist())
  return {'image': np.stack([record['image'] for record in read]),
          'label': np.array([record['label'] for record in read], np.int32)}


def _remember(fetch, size, shape):
  """`fetch` which reads each example once."""
  images, labels = np.empty((size, *shape), np.uint8), np.empty(size, np.int32)
  seen = np.zeros(size, bool)

  def remembered(indices):
    missing = np.unique(indices[~seen[indices]])
    if missing.size:
      batch = fetch(missing)
      images[missing], labels[missing], seen[missing] = batch['image'], batch['label'], True
    return {'image': images[indices], 'label': labels[indices]}

  return remembered


def _place(data_dir):
  return repr(os.fspath(data_dir)) if data_dir else "TensorFlow Datasets' own folder"


def _first_line(error):
  return next(iter(str(error).strip().splitlines()), '')
