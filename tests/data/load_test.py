import sys

from effjax.data.load import load


def test_the_default_is_digits_and_needs_no_tensorflow():
  assert load().train.name == 'digits/train'
  assert load('digits', data_dir='nowhere').test.size == 360
  assert 'tensorflow' not in sys.modules
