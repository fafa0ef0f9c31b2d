"""How long each formulation of a convolution takes on this backend, beside lax's: `python formulations.py`.

For every shape and dtype the forward pass and both gradients by themselves, each a call of its own on 10 different
inputs in a row (an accelerator works them off without waiting for the host). All formulations run in turn; printed is
the median of lax's time divided by the formulation's: above 1 it is faster than lax. `*` marks what the library takes.
"""
import argparse
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from timing import measure, ratio

from effjax.layers.conv_formulations import FORMULATIONS, fastest
from effjax.layers.conv_shape import Conv

CALLS = 10
PARTS = ('forward', 'input_gradient', 'kernel_gradient')


def grid():
  """(batch, size, cin, cout, kernel, strides, groups) of each row."""
  yield from ((128, 32, c, c, k, 1, c) for k in (3, 5) for c in (32, 128, 512))
  yield from ((128, 32, 128, 128, 3, 2, 128), (32, 112, 64, 64, 3, 1, 64), (128, 7, 512, 512, 3, 1, 512))
  yield from ((128, 32, 128, 128, k, 1, g) for k in (3, 1) for g in (4, 32))
  yield from ((128, 32, i, o, 1, 1, 1) for i, o in ((64, 64), (32, 192), (256, 256)))


def calls(conv, part, name, dtype):
  """A function that runs `part` of a formulation CALLS times and waits."""
  random = np.random.default_rng(0)
  draw = lambda shape: jnp.asarray(random.normal(size=shape), dtype)
  y = (conv.x[0], *conv.size, conv.w[3])
  shapes = {'forward': (conv.x, conv.w), 'input_gradient': (y, conv.w), 'kernel_gradient': (conv.x, y)}[part]
  args = [draw(shape) for shape in shapes]
  more = [(args[0] + i, args[1]) for i in range(3)]
  run = jax.jit(lambda a, b: getattr(FORMULATIONS[name], part)(a, b, conv)).lower(*args).compile()
  return lambda: jax.block_until_ready([run(*more[i % 3]) for i in range(CALLS)])


def row(shape, dtype, rounds):
  """The line of one shape."""
  n, size, cin, cout, k, strides, groups = shape
  pad = (((k - 1) // 2,) * 2,) * 2
  conv = Conv((n, size, size, cin), (k, k, cin // groups, cout), (strides,) * 2, (1, 1), pad, groups)
  names = [name for name, each in FORMULATIONS.items() if each.fits(conv)]
  chosen = fastest(conv) if jax.default_backend() == 'cpu' else 'lax'
  found = []
  for part in PARTS:
    times = measure({name: calls(conv, part, name, dtype) for name in names}, rounds)
    gain = {name: ratio(times['lax'], times[name])[0] for name in names}
    found.append(f'{part} ({1e3 * statistics.median(times["lax"]) / CALLS:.0f} us) ' +
                 ', '.join(f'{name}{"*" if name == chosen else ""} {gain[name]:.2f}' for name in names))
  print(f'{str(shape):36} {jnp.dtype(dtype).name:9} {"; ".join(found)}', flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--dtypes', nargs='+', default=['float32', 'bfloat16'])
  args = parser.parse_args()
  print(f'jax {jax.__version__} on {jax.devices()[0].device_kind}')
  for dtype in args.dtypes:
    for shape in grid():
      row(shape, dtype, args.rounds)


if __name__ == '__main__':
  main()
