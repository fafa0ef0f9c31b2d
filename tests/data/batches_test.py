import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effjax.data.batches import batches, evaluation_batches
from effjax.data.source import arrays
from effjax.errors import EffjaxError


def numbered(size):
  """A source whose label is the index."""
  return arrays('numbers/train', np.arange(size, dtype=np.uint8).reshape(-1, 1, 1, 1), np.arange(size, dtype=np.int32),
                size)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 60), batch_size=st.integers(1, 60), seed=st.integers(0, 99), epoch=st.integers(0, 3))
def test_an_epoch_shows_no_example_twice(size, batch_size, seed, epoch):
  batch_size = min(batch_size, size)
  steps = size // batch_size
  batch = batches(numbered(size), batch_size, seed)
  shown = np.concatenate([batch(epoch * steps + i)['label'] for i in range(steps)])
  assert len(set(shown.tolist())) == steps * batch_size


def test_a_batch_depends_on_seed_and_step_alone():
  resumed, whole = batches(numbered(50), 8, seed=3), batches(numbered(50), 8, seed=3)
  run = [whole(step) for step in range(40)]
  for step in (39, 7, 0):
    for name, value in resumed(step).items():
      np.testing.assert_array_equal(value, run[step][name])
  other = [batches(numbered(50), 8, seed=4)(step)['label'] for step in range(6)]
  assert any((a != b['label']).any() for a, b in zip(other, run, strict=False))


def test_epochs_differ_and_leave_out_different_examples():
  batch = batches(numbered(10), 9, seed=0)
  left_out = {(set(range(10)) - set(batch(epoch)['label'].tolist())).pop() for epoch in range(20)}
  assert len(left_out) > 3


def test_contents_and_types():
  batch = batches(numbered(10), 4, seed=0)(1)
  assert {name: (value.dtype, value.shape) for name, value in batch.items()} == {
      'image': (np.uint8, (4, 1, 1, 1)), 'label': (np.int32, (4,)), 'id': (np.int32, (4,))}
  assert batch['id'].tolist() == [0, 1, 2, 3]
  assert (batch['image'][:, 0, 0, 0] == batch['label']).all()


@pytest.mark.parametrize('batch_size', [0, 11])
def test_a_batch_larger_than_the_source(batch_size):
  with pytest.raises(EffjaxError, match=f"batch_size: wants 1 to 10, the examples in 'numbers/train', got {batch_size}:"
                     ' choose a smaller batch'):
    batches(numbered(10), batch_size, seed=0)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_evaluation_shows_each_example_once_in_batches_of_one_size(size, batch_size):
  shown = list(evaluation_batches(numbered(size), batch_size))
  assert {batch['image'].shape for batch in shown} == {(batch_size, 1, 1, 1)}
  assert np.concatenate([batch['label'][batch['mask']] for batch in shown]).tolist() == list(range(size))
  assert len(shown) == -(-size // batch_size)
