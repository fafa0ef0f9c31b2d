"""A data set by name."""
import os

from effjax.data.digits import digits
from effjax.data.source import Dataset
from effjax.data.tfds import tfds


def load(name: str = 'digits', data_dir: str | os.PathLike | None = None) -> Dataset:
  """The embedded `digits`, or any image classification set of TensorFlow Datasets by its name, without TensorFlow.

  Args:
    name: `digits`, or a name as TensorFlow Datasets knows it, e.g. `cifar10` or `cifar10:3.0.2`.
    data_dir: where prepared sets lie, and where a set is prepared after its download; None is TensorFlow Datasets'
      own folder. `digits` needs none.

  Raises:
    EffjaxError: the set is unknown, neither prepared nor to be downloaded, or not one of images of one size with a
      label each.

  >>> load().train.shape
  (8, 8, 1)
  """
  return digits() if name == 'digits' else tfds(name, data_dir)
