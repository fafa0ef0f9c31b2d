import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.data.augment import augment, normalize, standard

IMAGE = np.arange(1., 4 * 5 * 2 + 1).reshape(4, 5, 2).astype(np.float32)


def batch(n):
  return jnp.asarray(np.broadcast_to(IMAGE, (n, *IMAGE.shape)).copy())


def keys(n, seed=0):
  return jax.random.split(jax.random.key(seed), n)


def reference(row, column, flipped, pad):
  """The image shifted by `row - pad`, `column - pad`, and mirrored."""
  padded = np.pad(IMAGE, ((pad, pad), (pad, pad), (0, 0)))
  crop = padded[row:row + 4, column:column + 5]
  return crop[:, ::-1] if flipped else crop


@pytest.mark.parametrize('f', [normalize, jax.jit(normalize)])
def test_normalize_gives_the_values_of_an_int8_input(f):
  x = np.asarray(f(jnp.arange(256, dtype=jnp.uint8)))
  scale, codes = np.float32(1 / 255), np.arange(-128, 128)
  np.testing.assert_allclose(x, np.arange(256) / 255, rtol=1e-6)
  np.testing.assert_array_equal(x, scale * (codes + 128).astype(np.float32))
  np.testing.assert_array_equal(np.round(x / scale) - 128, codes)
  assert x.dtype == np.float32


def test_no_pad_and_no_flip_change_nothing():
  np.testing.assert_array_equal(augment(keys(3), batch(3), pad=0, flip=False), batch(3))


@pytest.mark.parametrize(('pad', 'flip'), [(1, False), (1, True), (0, True), (2, False)])
def test_every_result_is_a_crop_and_all_are_equally_likely(pad, flip):
  n = 4_000
  side = 2 * pad + 1
  crops = [reference(i, j, k, pad) for i in range(side) for j in range(side) for k in range(1 + flip)]
  out = np.asarray(jax.jit(lambda keys, x: augment(keys, x, pad=pad, flip=flip))(keys(n), batch(n)))
  same = (out[:, None] == np.stack(crops)[None]).all((2, 3, 4))
  np.testing.assert_array_equal(same.sum(1), np.ones(n))
  p = 1 / len(crops)
  assert np.abs(same.sum(0) - n * p).max() < 5 * np.sqrt(n * p * (1 - p))  # five standard deviations


def test_an_example_depends_on_its_own_key_alone():
  whole = augment(keys(6), batch(6), pad=2, flip=True)
  for part in (slice(0, 2), slice(3, 6)):
    np.testing.assert_array_equal(whole[part], augment(keys(6)[part], batch(6)[part], pad=2, flip=True))


def test_one_trace():
  traced = jax.jit(chex.assert_max_traces(lambda keys, x: augment(keys, x, pad=1, flip=True), n=1))
  for seed in range(3):
    assert traced(keys(2, seed), batch(2)).dtype == jnp.float32


def test_standard_arguments():
  assert standard('digits', (8, 8, 1)) == {'pad': 1, 'flip': False}
  assert standard('cifar10:3.0.2', (32, 32, 3)) == {'pad': 4, 'flip': True}
  assert standard('svhn_cropped', (32, 32, 3)) == {'pad': 4, 'flip': False}
