"""How long pools take beside lax's and PyTorch's on the CPU: `python pools.py [--rounds N] [--bfloat16] [--forward]`.

Forward and backward, or forward alone; float32, or bfloat16 for JAX's two. All contenders run in turn in one process;
medians. PyTorch (channels_last) where it is installed. `effjax` is formulation=None, `lax` is formulation='lax'.
"""
import argparse
import functools
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from timing import measure

from effjax.layers.avg_pool import avg_pool
from effjax.layers.max_pool import max_pool

try:
  import torch
except ImportError:
  torch = None

POOLS = {'max': max_pool, 'avg': avg_pool}
# batch, height = width, channels, window, strides, padding on both sides
SHAPES = [(n, 32, c, *each) for n, c in ((64, 16), (64, 64), (1, 64))
          for each in ((3, 1, 1), (3, 2, 1), (2, 2, 0))] + [
    (8, 112, 64, 3, 2, 1), (64, 14, 64, 5, 1, 2), (16, 14, 256, 5, 3, 0), (64, 7, 64, 7, 1, 3), (64, 7, 64, 7, 7, 0),
    (64, 8, 64, 8, 8, 0), (1, 7, 1280, 7, 7, 0), (16, 13, 64, 9, 1, 4), (16, 13, 64, 11, 1, 5), (64, 11, 64, 11, 11, 0)]


def with_jax(pool, shape, formulation, dtype, forward):
  """A call of one round and the seconds of its compilation."""
  n, size, channels, window, strides, pad = shape
  random = np.random.default_rng(0)
  x = jnp.asarray(random.normal(size=(n, size, size, channels)), dtype)
  pooled = lambda x: pool(x, window, strides, ((pad, pad), (pad, pad)), formulation=formulation)
  g = jnp.asarray(random.normal(size=jax.eval_shape(pooled, x).shape), dtype)

  def both(x, g):
    y, pull = jax.vjp(pooled, x)
    return y, pull(g)[0]
  start = time.perf_counter()
  run = jax.jit(lambda x, g: pooled(x) if forward else both(x, g)).lower(x, g).compile()
  return lambda: jax.block_until_ready(run(x, g)), time.perf_counter() - start


def with_torch(kind, shape, forward):
  """The same in PyTorch."""
  n, size, channels, window, strides, pad = shape
  x = torch.randn(n, channels, size, size).to(memory_format=torch.channels_last).requires_grad_(not forward)
  pool = getattr(torch.nn.functional, f'{kind}_pool2d')
  g = torch.randn_like(pool(x, window, strides, pad))

  def run():
    x.grad = None
    y = pool(x, window, strides, pad)
    if not forward:
      y.backward(g)
  return run


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rounds', type=int, default=15)
  parser.add_argument('--pools', nargs='*', default=list(POOLS))
  parser.add_argument('--formulations', nargs='*', default=['effjax', 'lax'], help="also 'shifts'")
  parser.add_argument('--bfloat16', action='store_true')
  parser.add_argument('--forward', action='store_true', help='without the backward pass')
  args = parser.parse_args()
  print(f'jax {jax.__version__}, {torch and "torch " + torch.__version__}, {os.cpu_count()} cores, '
        f'{"bfloat16" if args.bfloat16 else "float32"}, {"forward" if args.forward else "forward and backward"}; ms')
  for kind in args.pools:
    for shape in SHAPES:
      contenders, compiled = {}, {}
      for name in args.formulations:
        made = functools.partial(with_jax, POOLS[kind], shape, None if name == 'effjax' else name)
        contenders[name], compiled[name] = made(jnp.bfloat16 if args.bfloat16 else jnp.float32, args.forward)
      if torch and not (args.bfloat16 or shape[5] > shape[3] // 2):
        contenders['torch'] = with_torch(kind, shape, args.forward)
      found = {name: statistics.median(each) for name, each in measure(contenders, args.rounds).items()}
      best = found[args.formulations[0]]
      print(f'{kind} {str(shape):28} ' + ', '.join(f'{name} {ms:7.2f}' for name, ms in found.items()) + '; times: '
            + ', '.join(f'{name} {ms / best:5.2f}' for name, ms in found.items() if ms != best)
            + f'; s to compile: {", ".join(f"{s:.2f}" for s in compiled.values())}', flush=True)
  print(f'load at the end {os.getloadavg()[0]:.1f}')


if __name__ == '__main__':
  main()
