"""The embedded data set: handwritten digits, 1,797 real images of 8x8, in scikit-learn's wheel."""
import numpy as np

from effjax.data.source import Dataset, arrays, permutation, subset

SPLIT_SEED = 0
DEAL = np.array(['test', 'validation', 'train', 'train', 'train', 'test', 'train', 'train', 'train', 'train'])


def digits() -> Dataset:
  """The digits in three fixed parts: 1,257 train, 180 validation, 360 test.

  The split is part of the data set's definition: no user's seed changes it. It is stratified: in a fixed random order,
  sorted by class, the examples are dealt out, of every ten two to test, one to validation, seven to train.
  A value v of 0 to 16 becomes `round(255 v / 16)`.

  Source: Alpaydin and Kaynak 1998, UCI "Optical Recognition of Handwritten Digits", the test set as in
  `sklearn.datasets.load_digits`.

  >>> [part.size for part in digits()]
  [1257, 180, 360]
  """
  from sklearn.datasets import load_digits
  pixels, labels = load_digits(return_X_y=True)
  images = np.round(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
  whole = arrays('digits', images, labels.astype(np.int32), 10)
  return Dataset(**{name: subset(whole, f'digits/{name}', part) for name, part in split(labels).items()})


def split(labels: np.ndarray) -> dict[str, np.ndarray]:
  """The indices of each part, given the labels of all.

  >>> {name: len(part) for name, part in split(np.arange(20) % 2).items()}
  {'train': 14, 'validation': 2, 'test': 4}
  """
  order = permutation(len(labels), SPLIT_SEED)
  by_class = order[np.argsort(labels[order], kind='stable')]
  dealt = DEAL[np.arange(len(labels)) % len(DEAL)]
  return {name: np.sort(by_class[dealt == name]) for name in Dataset._fields}
