import hashlib

import numpy as np

from effjax.data.digits import digits, split


def everything(part):
  return part.fetch(np.arange(part.size))


def test_sizes_shape_and_types():
  parts = digits()
  assert [part.size for part in parts] == [1257, 180, 360]
  for part in parts:
    batch = everything(part)
    assert part.shape == (8, 8, 1) == batch['image'].shape[1:]
    assert part.num_classes == 10
    assert batch['image'].dtype == np.uint8
    assert batch['label'].dtype == np.int32


def test_pixels_are_the_rounded_values_of_scikit_learn():
  from sklearn.datasets import load_digits
  values = load_digits().images
  reference = np.floor(values * 255 / 16 + .5)  # no value lies half way: 255 v / 16 is never an odd half
  parts = split(load_digits().target)
  for part, indices in zip(digits(), parts.values(), strict=True):
    np.testing.assert_array_equal(everything(part)['image'][..., 0], reference[indices])


def test_parts_are_disjoint_complete_and_stratified():
  from sklearn.datasets import load_digits
  labels = load_digits().target
  parts = split(labels)
  assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(1797))
  for name, share in (('train', .7), ('validation', .1), ('test', .2)):
    counts = np.bincount(labels[parts[name]])
    assert np.abs(counts - share * np.bincount(labels)).max() <= 2  # a class of n gives n / 10 rounded, at each end


def test_the_split_is_fixed():
  from sklearn.datasets import load_digits
  order = np.concatenate(list(split(load_digits().target).values())).astype('<i8')
  assert hashlib.sha256(order.tobytes()).hexdigest()[:16] == 'ab2c73c5004a25fd'
