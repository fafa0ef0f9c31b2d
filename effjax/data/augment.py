"""What is done to images inside the compiled step."""
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Num, UInt8

FLIPPED = frozenset({'cifar10', 'cifar100'})


def normalize(image: UInt8[Array, '*s']) -> Float[Array, '*s']:
  """`x s`, s = float32(1 / 255), in [0, 1]: bitwise what an int8 input of scale s and zero point -128 stands for.

  Not `x / 255`, which XLA may round otherwise inside a larger program.

  >>> normalize(jnp.array([0, 5, 255], jnp.uint8))
  Array([0.        , 0.01960784, 1.        ], dtype=float32)
  """
  return image.astype(jnp.float32) * np.float32(1 / 255)


def augment(keys: Key[Array, ' n'], image: Num[Array, 'n h w c'], *, pad: int,
            flip: bool) -> Num[Array, 'n h w c']:
  """Each image shifted by -pad to pad pixels both ways (zeros come in), and mirrored with probability 1/2.

  The crop after zero padding of He et al. 2016, arXiv:1512.03385, section 4.2: all (2 pad + 1)^2 shifts are equally
  likely. Every example has a key of its own, so that its picture does not depend on its neighbours or its device.

  Args:
    keys: one typed key per image.
    image: the batch.
    pad: largest shift in pixels; 0 leaves the position alone.
    flip: mirror half of them, left to right; only where a mirrored image has the same label.

  >>> image = jnp.arange(9.).reshape(1, 3, 3, 1)
  >>> bool((augment(jax.random.split(jax.random.key(0), 1), image, pad=0, flip=False) == image).all())
  True
  """
  return jax.vmap(lambda key, x: _flip(key, _shift(key, x, pad)) if flip else _shift(key, x, pad))(keys, image)


def standard(name: str, shape: tuple[int, int, int]) -> dict[str, int | bool]:
  """The usual arguments of `augment` for a data set: pad an eighth of the shorter side; flip where labels allow it.

  >>> standard('digits', (8, 8, 1)), standard('cifar10', (32, 32, 3))
  ({'pad': 1, 'flip': False}, {'pad': 4, 'flip': True})
  """
  return {'pad': min(shape[:2]) // 8, 'flip': name.split(':')[0] in FLIPPED}


def _shift(key, x, pad):
  row, column = jax.random.randint(jax.random.fold_in(key, 0), (2,), 0, 2 * pad + 1)
  padded = jnp.pad(x, ((pad, pad), (pad, pad), (0, 0)))
  return jax.lax.dynamic_slice(padded, (row, column, 0), x.shape)


def _flip(key, x):
  return jnp.where(jax.random.bernoulli(jax.random.fold_in(key, 1)), x[:, ::-1], x)
