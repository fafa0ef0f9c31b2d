"""On CIFAR-10 where a prepared folder is at hand, and on tiny sets prepared here, without TensorFlow."""
import io
import os
import pathlib
import sys

import numpy as np
import pytest
import tensorflow_datasets
from PIL import Image

from effjax.data.batches import batches
from effjax.data.load import load
from effjax.errors import EffjaxError

ROOT = pathlib.Path(__file__).parents[2]
PREPARED = pathlib.Path(os.environ.get('EFFJAX_TFDS_DIR', ROOT / '../shared/data/tfds'))
SPLITS = {'train': 30, 'test': 7}
needs_prepared = pytest.mark.skipif(
    not (PREPARED / 'cifar10').is_dir(), reason=f'no prepared cifar10 in {PREPARED}: set EFFJAX_TFDS_DIR')


def pixels(split, i):
  return np.full((6, 5), 40 * (split == 'test') + i, np.uint8)


def png(image):
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'png')
  file.seek(0)
  return file


@pytest.fixture
def prepare(tmp_path):
  """Writes a set of 6x5 grey images, whose pixels are their index, and returns its folder."""
  features = tensorflow_datasets.features

  def write(splits=SPLITS, label=None, shape=(6, 5, 1)):
    label = label or features.ClassLabel(num_classes=3)
    with tensorflow_datasets.core.registered.skip_registration():
      class TinyPictures(tensorflow_datasets.core.GeneratorBasedBuilder):
        VERSION = tensorflow_datasets.core.Version('1.0.0')

        def _info(self):
          image = features.Image(shape=shape, encoding_format='png')
          return tensorflow_datasets.core.DatasetInfo(
              builder=self, features=features.FeaturesDict({'image': image, 'label': label}))

        def _split_generators(self, manager):
          return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
          for i in range(splits[split]):
            yield i, {'image': png(pixels(split, i)), 'label': i % 3}

    TinyPictures(data_dir=tmp_path, file_format='array_record').download_and_prepare()
    return tmp_path

  return write


def shown(part):
  batch = part.fetch(np.arange(part.size))
  index = batch['image'][:, 0, 0, 0].astype(int)
  np.testing.assert_array_equal(batch['image'], np.broadcast_to(index[:, None, None, None], (part.size, 6, 5, 1)))
  np.testing.assert_array_equal(batch['label'], (index % 40) % 3)
  assert (batch['image'].dtype, batch['label'].dtype) == (np.uint8, np.int32)
  return set(index.tolist())


def test_parts_of_a_set_with_train_and_test(prepare):
  data = load('tiny_pictures', prepare())
  assert [(part.name, part.size, part.shape, part.num_classes) for part in data] == [
      ('tiny_pictures/train', 27, (6, 5, 1), 3), ('tiny_pictures/validation', 3, (6, 5, 1), 3),
      ('tiny_pictures/test', 7, (6, 5, 1), 3)]
  assert shown(data.train) | shown(data.validation) == set(range(30))
  assert shown(data.test) == {40 + i for i in range(7)}


def test_a_set_with_a_validation_split_keeps_all_of_train(prepare):
  data = load('tiny_pictures', prepare({'train': 12, 'validation': 4, 'test': 5}))
  assert [part.size for part in data] == [12, 4, 5]


def test_a_set_without_a_test_split_is_tested_on_validation(prepare):
  data = load('tiny_pictures', prepare({'train': 20, 'validation': 4}))
  assert [(part.name, part.size) for part in data] == [
      ('tiny_pictures/train', 18), ('tiny_pictures/validation', 2), ('tiny_pictures/validation', 4)]


def test_an_example_is_decoded_once(prepare, monkeypatch):
  data = load('tiny_pictures', prepare())
  first = data.test.fetch(np.array([2, 2, 5]))
  monkeypatch.setattr(Image, 'open', lambda *_: pytest.fail('decoded again'))
  again = data.test.fetch(np.array([5, 2]))
  np.testing.assert_array_equal(again['image'], first['image'][[2, 0]])


def test_too_large_to_remember(prepare, monkeypatch):
  monkeypatch.setattr('effjax.data.tfds.REMEMBERED_BYTES', 0)
  assert shown(load('tiny_pictures', prepare()).test) == {40 + i for i in range(7)}


@needs_prepared
def test_cifar10_without_tensorflow():
  data = load('cifar10', PREPARED)
  assert [part.size for part in data] == [45_000, 5_000, 10_000]
  batch = batches(data.train, 16, seed=0)(0)
  assert batch['image'].shape == (16, 32, 32, 3)
  assert batch['image'].std() > 20
  assert set(batch['label'].tolist()) <= set(range(10))
  assert 'tensorflow' not in sys.modules


def test_unknown_set():
  with pytest.raises(EffjaxError, match=r"data set 'cifra10' is unknown: neither digits, nor a name of TensorFlow "
                     r"Datasets \(nearest are \['cifar10', .*\]\), nor a prepared folder in TensorFlow Datasets' own "
                     r'folder: correct the name or data_dir'):
    load('cifra10')


def test_neither_prepared_nor_downloadable(tmp_path, monkeypatch):
  import requests

  def offline(*args, **kwargs):
    raise requests.ConnectionError('offline')

  monkeypatch.setattr(requests, 'head', offline)
  with pytest.raises(EffjaxError, match=r"data set 'mnist' is not prepared in .*mnist.* and cannot be made there "
                     r'\(ConnectionError: no connection to http.*\): pass the folder .*`tfds build mnist '):
    load('mnist', tmp_path)
  assert list(tmp_path.iterdir()) == []


def test_unknown_version(prepare):
  with pytest.raises(EffjaxError, match=r"data set 'tiny_pictures:2.0.0' (in|is unknown).*correct the name"):
    load('tiny_pictures:2.0.0', prepare())


def test_not_classification(prepare):
  folder = prepare(label=tensorflow_datasets.features.Scalar(np.int64))
  with pytest.raises(EffjaxError, match=r"'tiny_pictures' has the features .*label: Scalar.*wanted image: uint8 of one "
                     'fixed shape and label: ClassLabel: choose a set for image classification'):
    load('tiny_pictures', folder)


def test_a_format_without_random_access(prepare):
  folder = prepare()
  info = folder / 'tiny_pictures/1.0.0/dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))  # TensorFlow would be needed to write one
  with pytest.raises(EffjaxError, match='is stored as .*, wanted a format with random access: prepare it again with '
                     '--file_format=array_record'):
    load('tiny_pictures', folder)


def test_images_of_many_sizes(prepare):
  with pytest.raises(EffjaxError, match=r'image: Image\(None, None, 1\).*wanted image: uint8 of one fixed shape'):
    load('tiny_pictures', prepare(shape=(None, None, 1)))


def test_no_split_to_test_on(prepare):
  with pytest.raises(EffjaxError, match=r"has the splits \['train'\], wanted train and one of test, validation"):
    load('tiny_pictures', prepare({'train': 10}))
