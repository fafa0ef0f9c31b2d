"""What a training process on a CPU asks of its C library."""
import ctypes

_OPTIONS = {-1: -1, -4: 0}  # of mallopt(3): trim a heap above the largest size (as -1), map 0 blocks by themselves


def keep_memory() -> bool:
  """Memory that was freed stays with this process, whose steps on a CPU become faster; call it once, first.

  XLA allocates the temporaries of a step as one block, anew in every step. The C library of Linux takes a block that
  large from the system and gives it back, so each step pays for each of its pages again: 15 % of the time of
  MobileNetV2's step (`projects/benchmarks/convs.py --networks`, with and without `--keep-memory`). The price is that
  the process never shrinks. Blocks above 64 MB, or what is left of that in their heap, are mapped anew all the same.
  `effjax joint` calls it.

  Returns:
    whether the C library can; elsewhere than on Linux with glibc nothing happens.

  >>> keep_memory() in (True, False)
  True
  """
  option = getattr(ctypes.CDLL(None), 'mallopt', None)
  return option is not None and all(option(name, value) for name, value in _OPTIONS.items())
