"""GPTQ: weights rounded one input after another, the error of each carried to those that are left."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.quantize.granularity import check_finite
from effjax.quantize.lsq import initial_scale, largest_code


def gptq(w: Float[Array, 'n m'], gram: Float[Array, 'n n'], bits: int = 4, *, scale: Float[Array, '1 #m'] | None = None,
         damping: float = .01, order: bool = False, block: int = 128) -> tuple[Float[Array, 'n m'],
                                                                               Float[Array, '1 #m']]:
  """`(Q, scale)`, Q on the grid of w's `bits`, for small `||X (W - Q)||^2 = tr((W - Q)^T H (W - Q))`, `H = X^T X`.

  With `H^-1 = U^T U`, U upper triangular, for each input i in turn

      q_i = scale * clip(round(w_i / scale), -q, q)        w_j -= U_ij / U_ii (w_i - q_i)  for j > i

  which is the optimal change of the inputs that are left (OBQ) for the order that is given.

  Args:
    w: inputs x outputs; a convolution's kernel as `kernel.reshape(-1, cout)`, with the gram of its patches.
    gram: H, of the layer's inputs; summed over examples. In float32.
    bits: 2 to 8.
    scale: that of each output; None: `quantize.lsq`'s of least squared error.
    damping: so much of the mean of H's diagonal is added to it.
    order: the inputs of large `H_ii` first, as in the authors' later code ("act order").
    block: the inputs that are corrected at once; the rest of W waits for the end of the block. For speed alone.

  Raises:
    EffjaxError: bits outside 2..8; damping that is not positive; a block below 1; w that is not finite.

  Differs from the paper: symmetric codes; U is the inverse of a Cholesky factor of H with rows and columns reversed,
  which is the same U without forming H^-1; an input that is always 0 is rounded to nearest.

  Source: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
  Transformers", ICLR 2023, arXiv:2210.17323.

  >>> w = jnp.array([[.4], [.4]])
  >>> gram = jnp.array([[1., .99], [.99, 1.]])
  >>> gptq(w, gram, 2, scale=jnp.ones((1, 1)))[0].T  # their inputs are nearly the same, so that the sum matters
  Array([[0., 1.]], dtype=float32)
  """
  largest = largest_code(bits)
  if damping <= 0 or block < 1:
    raise EffjaxError(f'gptq: damping must be positive and block at least 1, got {damping} and {block}')
  check_finite('gptq', w)
  scale = initial_scale(w, bits) if scale is None else scale.astype(jnp.float32)
  places = jnp.argsort(-jnp.diag(gram)) if order else jnp.arange(len(w))
  factor = _factor(gram.astype(jnp.float32)[places][:, places], damping)
  round_row = lambda row: scale[0] * jnp.clip(jnp.round(row * (1 / scale[0])), -largest, largest)
  found = _rounded(w.astype(jnp.float32)[places], factor, round_row, min(block, len(w)))
  return jnp.zeros_like(w).at[places].set(found.astype(w.dtype)), scale


def _factor(gram, damping):
  """Rows of U, each divided by its diagonal: `H^-1 = U^T U`."""
  diagonal = jnp.diag(gram)
  extra = jnp.where(diagonal > 0, damping * jnp.mean(diagonal), jnp.ones_like(diagonal))
  lower = jnp.linalg.cholesky((gram + jnp.diag(extra))[::-1, ::-1])
  upper = jax.scipy.linalg.solve_triangular(lower, jnp.eye(len(gram)), lower=True)[::-1, ::-1]
  return upper / jnp.diag(upper)[:, None]


def _rounded(w, factor, round_row, block):
  """Blocks of rows: within one each row is corrected at once, below it when the block is done."""
  n, rows = len(w), -(-len(w) // block) * block
  w = jnp.pad(w, ((0, rows - n), (0, 0)))
  factor = jnp.pad(factor, ((0, rows - n), (0, rows - n)))

  def one(part, square, i):
    found = round_row(part[i])
    error = part[i] - found
    later = jnp.arange(block) > i
    return part - jnp.outer(jnp.where(later, square[i], jnp.zeros_like(square[i])), error), (found, error)

  def step(w, start):
    part = jax.lax.dynamic_slice_in_dim(w, start, block)
    across = jax.lax.dynamic_slice_in_dim(factor, start, block)
    square = jax.lax.dynamic_slice_in_dim(across, start, block, 1)
    found, errors = jax.lax.scan(lambda part, i: one(part, square, i), part, jnp.arange(block))[1]
    later = jnp.arange(rows) >= start + block
    return w - jnp.where(later[None], across, jnp.zeros_like(across)).T @ errors, found

  return jax.lax.scan(step, w, jnp.arange(0, rows, block))[1].reshape(rows, -1)[:n]
